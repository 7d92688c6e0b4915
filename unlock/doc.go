// Package unlock owns what a guest does: it attests to the service and opens
// the machine's LUKS volumes at boot ([Boot]), gives up the right to ask before
// control leaves the initramfs ([Closing]), binds volumes to the service in the
// first place ([Enrollment]), and changes their secrets ([Rekeying]) and volume
// keys ([Reencrypting]) while they are in use. An [Agent] waits for orders to do so,
// which a [Rekeyer] carries out.
//
// Invariants:
//   - What the service answers is believed only under the signature of the
//     pinned service identity key, which is verified before anything is
//     decrypted. TLS is transport, and no clock is believed.
//   - PCR 15 is extended right after a release was decrypted and before any
//     device is opened. Once it is extended this boot asks for no keys again; what
//     a running system is given shows which release it had. If it cannot be
//     extended, keys are wiped and the machine is reset; if somebody extended it
//     before, keys are wiped.
//   - A boot and a hand-over exclude each other: the hand-over extends PCR 15,
//     then waits until no boot runs, and only then looks at what was opened.
//   - The header that is validated is the header that is opened, and it has the
//     identity that the service enrolled.
//   - All or nothing: where one volume cannot be opened, none stays open.
//   - An enrolment can be cut at any point and run again. It never changes a
//     keyslot or token that is not ours, and the passphrase goes on to open.
//   - A rekey or reencryption can be cut, too, and what boots are released goes on
//     to open. The former version of a secret goes only where the service signed
//     that the new one is current. No keyslot is killed but by a key that has just
//     opened another one, and none of anybody else's unless he agreed.
//   - Keys are wiped at every exit.
//
// It refuses to open what package luks does not validate, to ask for the keys of a
// boot after a release, and to hand over a root that is not a mapping of its own.
// docs/guest.md is for operators, docs/protocol.md the specification.
package unlock
