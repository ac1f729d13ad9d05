//! The `interviews` program.

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        #[cfg(feature = "dev")]
        [_, interviews::dev::postgres::GUARD_COMMAND, dir] => interviews::dev::postgres::guard(dir.as_ref()),
        _ => anyhow::bail!("not a command of this program"),
    }
}
