// The allocator took a quarter of the CPU under load with the system's own; measured in docs/performance.md.
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    watchfloor::cli::run()
}
