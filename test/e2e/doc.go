// Package e2e runs Keywright's two programs as people do: the service with its
// operator's commands, and a virtual machine that boots from an encrypted disk
// and asks for its key. Package test/demo tells it as a story; the tests of this
// folder judge it.
//
// Invariants:
//   - What runs is what is shipped. The initramfs, the system on the disk and
//     the operator know nothing that an installation would not.
//   - Everything lives below a folder of the caller's, and ends with its
//     context or its Stop.
package e2e
