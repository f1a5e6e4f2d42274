//! `kv`: the command line of KV-Storage.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    kv_storage::cli::main()
}
