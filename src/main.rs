//! The `interviews` program.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        #[cfg(feature = "dev")]
        [_, interviews::dev::postgres::GUARD_COMMAND, dir] => interviews::dev::postgres::guard(Path::new(dir)),
        _ => anyhow::bail!("not a command of this program"),
    }
}
