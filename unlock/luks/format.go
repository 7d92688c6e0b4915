package luks

import (
	"context"
	"fmt"
	"strconv"

	"keywright.dev/kms/secret"
)

// Format makes a device a LUKS2 volume of the one shape that is opened here,
// with a key in keyslot 0. Whatever the device held is lost. The key must be a
// random secret: it is stretched as little as cryptsetup allows. The sector size
// is what cryptsetup finds best for the device.
func (c Cryptsetup) Format(ctx context.Context, device, subsystem string, key secret.Bytes) error {
	if err := checkKey(key); err != nil {
		return fmt.Errorf("formatting %s: %w", device, err)
	}
	return c.run(ctx, "luksFormat", device, input{stdin: []secret.Bytes{key}},
		"--batch-mode", "--type", "luks2", "--cipher", "aes-xts-plain64", "--key-size", "512", "--hash", "sha256",
		"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", strconv.Itoa(minIterations), "--key-slot", "0",
		"--subsystem", subsystem, "--key-file", "-", device)
}

// SetSubsystem changes the subsystem text of a header, which is nothing but a
// remark.
func (c Cryptsetup) SetSubsystem(ctx context.Context, device, subsystem string) error {
	return c.run(ctx, "config", device, input{}, "--subsystem", subsystem, device)
}
