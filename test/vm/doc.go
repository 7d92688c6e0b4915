// Package vm boots real virtual machines for tests and for the demo: a Debian
// kernel under QEMU, with SeaBIOS or OVMF, a software TPM and LUKS disks.
//
// It owns the parts a boot is made of (initramfs, UKI, ESP, TPM state, disk)
// and the machine's run with its serial console. It knows nothing of
// Keywright's protocol: what runs inside comes from the caller.
//
// Invariants:
//   - What is built twice from the same parts has the same bytes, so that PCRs
//     are equal from boot to boot.
//   - No process outlives its run, nor this process, however that one dies.
//   - A guest reaches the ports of this host's loopback that its [Machine]
//     names, and nothing else.
//   - Progress is told by markers on the console, never by time. Every error
//     about a guest carries the last lines of its console.
//
// It refuses to guess: a missing program, kernel or firmware is an error that
// says what to install. It never skips.
package vm
