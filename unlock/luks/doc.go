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
//     once, and the parser that validates is the one whose values unlock the
//     keyslot and build the device-mapper table. What is read later (the
//     keyslot's area) counts only if the validated digest confirms it.
//   - The backing device is the open file that the header came from, named to
//     the kernel by number, so that no path can be swapped in between.
//   - The volume key reaches the kernel as a logon key in a keyring that only
//     the calling thread has. It never stands in a device-mapper table.
//   - Keys reach the cryptsetup program through anonymous pipes only.
//
// It refuses LUKS1, unknown or missing fields, duplicate JSON names, any cipher
// but aes-xts-plain64, integrity, several segments, requirements (so also a
// reencryption in progress) and empty digests. Every refusal is a [Refusal]
// with a stable [Code].
//
// Format: LUKS2 On-Disk Format Specification 1.1. Our own formats stand in
// docs/formats/luks-token.md and docs/formats/luks-identity.md.
package luks
