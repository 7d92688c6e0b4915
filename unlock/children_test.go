//go:build !integration

package unlock_test

// children are what a process of these tests may be instead; those of tests that
// need other programs stand beside these.
func children() map[string]func(words []string) error {
	return map[string]func([]string) error{hardened: showHardened}
}
