// Package debian makes a Debian server as its installer leaves it, and drives it
// over its serial console: shim and GRUB under Secure Boot with Microsoft's keys,
// an unencrypted /boot, a root on LUKS2, initramfs-tools, systemd.
//
// Invariants:
//   - The installation runs in a virtual machine, as an installer does: the
//     distribution's own tools write initramfs, boot loader and configuration.
//   - It is made once and kept in the cache, by its packages and by what is done
//     to them; every user gets a copy.
//   - A command's output and exit code come over the console; a guest that ends
//     meanwhile is an error.
//
// It refuses to go on with a tree of packages that test/setup did not make.
package debian
