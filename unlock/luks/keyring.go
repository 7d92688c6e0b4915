package luks

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"keywright.dev/kms/secret"
)

// logonKey is a key type that the kernel never gives back to user space.
const logonKey = "logon"

// withLogonKey runs use while the key stands under description in the keyring
// of the calling thread, which use must not leave. No other thread or process
// has that keyring; dm-crypt searches it when a table is loaded and keeps a copy
// of its own. Afterwards the key is revoked, which destroys the payload, and
// unlinked.
func withLogonKey(description string, key secret.Bytes, use func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	serial, err := unix.AddKey(logonKey, description, key.Expose(), unix.KEY_SPEC_THREAD_KEYRING)
	if err != nil {
		return fmt.Errorf("adding the volume key to the thread's keyring: %w", err)
	}
	defer func() {
		if dropErr := dropKey(serial); err == nil {
			err = dropErr
		}
	}()
	return use()
}

func dropKey(serial int) error {
	if _, err := unix.KeyctlInt(unix.KEYCTL_REVOKE, serial, 0, 0, 0); err != nil {
		return fmt.Errorf("revoking the volume key in the keyring: %w", err)
	}
	if _, err := unix.KeyctlInt(unix.KEYCTL_UNLINK, serial, unix.KEY_SPEC_THREAD_KEYRING, 0, 0); err != nil {
		return fmt.Errorf("unlinking the volume key from the keyring: %w", err)
	}
	return nil
}
