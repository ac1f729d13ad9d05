mod adoption;
mod cluster;
mod support;
