package luks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"keywright.dev/kms/secret"
)

// A secret of 256 random bits needs no slow derivation; this is the least that
// cryptsetup takes.
const minIterations = 1000

// AddKeyslot adds a key as keyslot slot of the volume on device; existing opens
// any other keyslot. A wrong existing key is [ErrWrongKey]. The added key must be
// a random secret: it is stretched as little as cryptsetup allows.
func (c Cryptsetup) AddKeyslot(ctx context.Context, device string, existing, added secret.Bytes, slot int) error {
	return c.addKeyslot(ctx, device, existing, added, slot)
}

// SlotKey is a key and the keyslot that it opens.
type SlotKey struct {
	Slot int
	Key  secret.Bytes
}

// AddKeyslotBy is [Cryptsetup.AddKeyslot] by a key whose keyslot is known. One of
// priority "ignore" is passed by where it is not.
func (c Cryptsetup) AddKeyslotBy(ctx context.Context, device string, existing SlotKey, added secret.Bytes, slot int) error {
	if err := checkSlot(existing.Slot); err != nil {
		return fmt.Errorf("adding keyslot %d to %s: %w", slot, device, err)
	}
	return c.addKeyslot(ctx, device, existing.Key, added, slot, "--key-slot", strconv.Itoa(existing.Slot))
}

func (c Cryptsetup) addKeyslot(ctx context.Context, device string, existing, added secret.Bytes, slot int, more ...string) error {
	if err := errors.Join(checkKey(existing), checkKey(added), checkSlot(slot)); err != nil {
		return fmt.Errorf("adding keyslot %d to %s: %w", slot, device, err)
	}
	args := append([]string{
		"--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", strconv.Itoa(minIterations),
		"--new-key-slot", strconv.Itoa(slot), "--key-file", "/proc/self/fd/3", "--new-keyfile", "-", device,
	}, more...)
	return wrongKey(c.run(ctx, "luksAddKey", device, input{stdin: []secret.Bytes{added}, third: []secret.Bytes{existing}}, args...))
}

// SetPriority sets the priority of a keyslot: 0 ignored, 1 normal, 2 tried first.
func (c Cryptsetup) SetPriority(ctx context.Context, device string, slot, priority int) error {
	names := []string{"ignore", "normal", "prefer"}
	if err := checkSlot(slot); err != nil || priority < 0 || priority >= len(names) {
		return fmt.Errorf("setting the priority of keyslot %d of %s to %d: %w", slot, device, priority, cmp.Or(err, errPriority))
	}
	return c.run(ctx, "config", device, input{}, "--priority", names[priority], "--key-slot", strconv.Itoa(slot), device)
}

var errPriority = errors.New("no such priority")

// KillSlot destroys a keyslot; other must open another one, so that the last
// keyslot cannot be killed. A key that does not is [ErrWrongKey].
func (c Cryptsetup) KillSlot(ctx context.Context, device string, slot int, other secret.Bytes) error {
	if err := errors.Join(checkKey(other), checkSlot(slot)); err != nil {
		return fmt.Errorf("killing keyslot %d of %s: %w", slot, device, err)
	}
	// Without --batch-mode: that would kill without asking for a key.
	err := c.run(ctx, "luksKillSlot", device, input{stdin: []secret.Bytes{other}}, "--key-file", "-", device, strconv.Itoa(slot))
	return wrongKey(err)
}

// TestKey opens keyslot slot with key and changes nothing. A key that does not
// open it is [ErrWrongKey].
func (c Cryptsetup) TestKey(ctx context.Context, device string, slot int, key secret.Bytes) error {
	if err := errors.Join(checkKey(key), checkSlot(slot)); err != nil {
		return fmt.Errorf("testing keyslot %d of %s: %w", slot, device, err)
	}
	err := c.run(ctx, "open --test-passphrase", device, input{stdin: []secret.Bytes{key}},
		"--type", "luks2", "--key-slot", strconv.Itoa(slot), "--key-file", "-", device)
	return wrongKey(err)
}

// TestAnyKey opens any keyslot with key and changes nothing. A key that opens none is
// [ErrWrongKey].
func (c Cryptsetup) TestAnyKey(ctx context.Context, device string, key secret.Bytes) error {
	if err := checkKey(key); err != nil {
		return fmt.Errorf("testing a key of %s: %w", device, err)
	}
	return wrongKey(c.run(ctx, "open --test-passphrase", device, input{stdin: []secret.Bytes{key}}, "--type", "luks2", "--key-file", "-", device))
}

// ImportToken writes a token of ours under a free number.
func (c Cryptsetup) ImportToken(ctx context.Context, device string, number int, token Token) error {
	return c.writeToken(ctx, device, number, token)
}

// AssignToken replaces a token of ours by one that names slot, which says that
// the keyslot has been opened with its secret.
func (c Cryptsetup) AssignToken(ctx context.Context, device string, token OwnToken, slot int) error {
	token.Keyslots = []int{slot}
	return c.writeToken(ctx, device, token.ID, token.Token, "--token-replace")
}

func (c Cryptsetup) writeToken(ctx context.Context, device string, number int, token Token, more ...string) error {
	text, err := token.Encode()
	if err := errors.Join(err, checkSlot(number)); err != nil {
		return fmt.Errorf("writing token %d to %s: %w", number, device, err)
	}
	args := append([]string{"--token-id", strconv.Itoa(number), "--json-file", "-", device}, more...)
	return c.run(ctx, "token import", device, input{stdin: []secret.Bytes{secret.New(text)}}, args...)
}

// RemoveToken removes a token, whoever wrote it.
func (c Cryptsetup) RemoveToken(ctx context.Context, device string, number int) error {
	if err := checkSlot(number); err != nil {
		return fmt.Errorf("removing token %d from %s: %w", number, device, err)
	}
	return c.run(ctx, "token remove", device, input{}, "--token-id", strconv.Itoa(number), device)
}

// wrongKey turns the exit code of a run whose only permission is a key.
func wrongKey(err error) error {
	var failed *CommandError
	if errors.As(err, &failed) && failed.Exit == exitPermission {
		return fmt.Errorf("%w: %w", ErrWrongKey, failed)
	}
	return err
}
