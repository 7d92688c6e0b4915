// Package predict computes from the files of the next boot the claims that
// attestation will find in it: the Authenticode digests of a unified kernel
// image and of the kernel inside, the sections that systemd-stub measures, and
// the command line and initrd that the kernel's EFI stub measures.
//
// Invariants:
//   - It names only what follows from the file. What the rest of the boot adds
//     comes from an attested boot, over which [claims.Successor] lays the
//     result.
//   - What cannot be told is left out or refused with its name, never guessed:
//     a wrong prediction would be a machine that does not boot.
//   - The file is streamed: memory does not grow with its size.
//
// It refuses files that are not exactly a PE32+ image with systemd-stub in it.
package predict
