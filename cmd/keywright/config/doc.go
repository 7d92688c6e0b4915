// Package config owns the service's configuration: one documented struct, how
// it is read from a TOML file, and the reference made of its comments.
//
// Invariants:
//   - The comments of settings.go are the manual: what `keywright config
//     reference` prints is made of them and of [Default].
//   - The reference is itself a file that [Load] takes, and means the defaults.
//   - A key that no field has is refused, with its line and the nearest key.
//
// It refuses to open, listen to or create anything.
package config
