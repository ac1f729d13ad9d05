pub mod google;
pub mod postgres;
