// Package predict computes from the files of the next boot the claims that
// attestation will find in it: the Authenticode digests of a unified kernel
// image and of the kernel inside, the sections that systemd-stub measures, and
// the command line and initrd that the kernel's EFI stub measures; or, for a boot
// by GRUB, shim and GRUB themselves, the kernel, its command line and initrd and
// all that GRUB reads before.
//
// Invariants:
//   - It names only what follows from the file. What the rest of the boot adds
//     comes from an attested boot, over which [claims.Successor] lays the
//     result.
//   - What cannot be told is left out or refused with its name, never guessed:
//     a wrong prediction would be a machine that does not boot.
//   - Which files the firmware, shim and GRUB read, the event log of this boot
//     tells by their names. A false name leads to a wrong prediction, and to
//     nothing that would be approved in its place.
//   - Files are streamed: memory does not grow with their size.
//
// It refuses kernels that are not exactly a PE32+ image, and unified ones without
// systemd-stub in it.
package predict
