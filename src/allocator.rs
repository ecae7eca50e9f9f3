//! Settings of the C library's allocator.
#![expect(
    unsafe_code,
    reason = "mallopt has no safe form; it takes two numbers and is called before any thread exists"
)]

/// Makes memory that was freed go back to the system.
///
/// The allocator of glibc takes long buffers from the system one by one and gives them back, but moves the bound of "long"
/// up to what was freed last, 32 MiB at most. Packs then come from the heaps of several threads, whose holes are never
/// closed: the first backup of a tree of 80,000 files took 133 MiB where it used 75.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// From this length on a buffer is taken from the system and given back to it.
        const MMAP_THRESHOLD: i32 = 2 << 20;
        // SAFETY: two numbers, no pointer. A value that the allocator refuses changes nothing.
        let _refused = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD) };
    }
}
