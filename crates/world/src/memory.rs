//! How memory is shared out among threads.

/// Arenas for each processor.
#[cfg(target_env = "gnu")]
const ARENAS: usize = 1;
/// Fewer would have two threads wait for each other on any machine.
#[cfg(target_env = "gnu")]
const ARENAS_MIN: usize = 2;

/// Has all threads take memory from a few arenas. The C library of GNU makes up to eight for each processor,
/// and what one thread is done with stays with its arena: a server whose many threads each make a large answer
/// now and then keeps the memory of all of them. Before the first thread is started; other C libraries are left
/// as they are.
#[allow(
    unsafe_code,
    reason = "a setting of the C library that has no other way in"
)]
pub fn share_memory() {
    #[cfg(target_env = "gnu")]
    {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let arenas = (ARENAS * processors).max(ARENAS_MIN);
        let arenas = libc::c_int::try_from(arenas).unwrap_or(libc::c_int::MAX);
        // SAFETY: it takes two numbers, and no other thread runs that could allocate meanwhile. Where it is
        // refused the library goes on as it would have.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }
}
