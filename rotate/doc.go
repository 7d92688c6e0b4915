// Package rotate owns the planner of rotations: what is due of keyring versions,
// volumes' secrets and volume keys, and in which order it is done.
//
// [Make] compares a [State] with a [Policy] and returns a [Plan]; [Compromised] does
// the same for a key that is out. Both are pure: the same state, policy and time give
// the same steps. They carry nothing out.
//
// Invariants:
//   - No step destroys what something depends on: a keyring version with a census
//     above zero, a secret that is current, or one that is kept for restores and
//     whose time has not come.
//   - Of a keyring version: another one is made before anything is rewrapped, it is
//     disabled when nothing depends on it, and destroyed when it is disabled.
//   - No two steps are of one object at once: in a plan there are none, in a chain one
//     comes after the other. There is none of a volume's keys while an order is open
//     for the volume.
//   - What is done with a compromised key begins with fresh randomness, which that
//     key never wrapped.
//   - What a plan holds in memory is bounded by the policy, however many volumes
//     there are: volumes are streamed, and what does not fit is counted.
//
// It refuses policies with keys that it does not know, and sees no secret: only
// which version of a secret was wrapped by which version of a keyring.
package rotate
