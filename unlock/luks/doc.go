// Package luks owns everything the guest does with LUKS2 volumes: it reads and
// validates headers, opens volumes through device-mapper, and changes keyslots
// and tokens.
//
// A volume passes through two types. [Header] is what [Parse] or [ReadDevice]
// read: well-formed, checksummed, but not yet trusted. [Volume] is what
// [Header.Validate] makes of it, and the only thing that can be opened.
//
// Invariants:
//   - The header that is validated is the header that is opened: it is read
//     once. Keyslots are opened by luks.go, which sees nothing but a sealed copy
//     in memory of that header and of one keyslot's area, read then. The
//     device-mapper table is built from the validated values, not from luks.go's.
//   - luks.go is asked only about a keyslot that is as enrolment makes them, in
//     cost, hashes and cipher, and what it returns counts only if our own comparison with the
//     validated digest confirms it.
//   - The backing device is the open file that the header came from, named to
//     the kernel by number, so that no path can be swapped in between.
//   - The volume key reaches the kernel as a logon key in a keyring that only
//     the calling thread has. It never stands in a device-mapper table.
//   - Keys reach the cryptsetup program through anonymous pipes only.
//
// It refuses LUKS1, unknown or missing fields, duplicate JSON names, any cipher
// but aes-xts-plain64, integrity, several segments, requirements (so also a
// reencryption in progress) and digests that are empty or cost too much. Every
// refusal is a [Refusal] with a stable [Code]. Whatever validates, luks.go reads.
// Keyslots and digests of no segment, which a reencryption leaves that was cut
// before it began, open nothing and are passed by.
//
// What stays behind: the slices that hold the volume key are wiped, but luks.go
// derives through golang.org/x/crypto/pbkdf2, which copies its input into a
// string that nobody can wipe. One copy of the volume key, and one of the key of
// a pbkdf2 keyslot, stay in the process until its memory is used again: it should
// be locked, not dumpable, and end soon.
//
// Format: LUKS2 On-Disk Format Specification 1.1. Our own formats stand in
// docs/formats/luks-token.md and docs/formats/luks-identity.md.
package luks
