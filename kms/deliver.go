package kms

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/recovery"
	"keywright.dev/kms/secret"
)

// keyslotSecret is the length of what opens a LUKS keyslot.
const keyslotSecret = 32

// addVolume makes a volume of a keyring and its first secrets.
func (e *enrolling) addVolume(out *Outcome, asked exchange.Volume, keyring string) error {
	var ids [32]byte
	if _, err := io.ReadFull(e.service.Random, ids[:]); err != nil {
		return fmt.Errorf("naming a volume: %w", err)
	}
	volume := Volume{
		ID: hex.EncodeToString(ids[:16]), Machine: e.attested.Machine, UUID: asked.UUID,
		Status: VolumePending, Resume: ids[16:], Keyring: keyring, Created: e.service.Clock(),
	}
	out.Volumes = append(out.Volumes, volume)
	key, err := e.newSecret(out, &volume, PurposeKeyslot)
	if err != nil {
		return err
	}
	return e.deliver(out, &volume, 1, key, nil)
}

// newSecret makes the first secret of a volume for a purpose. The caller wipes it.
func (e *enrolling) newSecret(out *Outcome, volume *Volume, purpose string) (secret.Bytes, error) {
	key, err := e.newKey(purpose)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("making a secret of volume/%s: %w", volume.ID, err)
	}
	row := Secret{
		Volume: volume.ID, Purpose: purpose, Version: 1, Status: SecretPending, Keyring: volume.Keyring, Created: e.service.Clock(),
	}
	row.Wrapped, row.KeyringVersion, err = e.service.Keys.Wrap(secretContext(e.binding, volume.Machine, &row, purpose), key)
	if err == nil && purpose == PurposeRecovery {
		row.AgeCopy, err = e.service.Recovery.Copy(key)
	}
	if err != nil {
		key.Wipe()
		return secret.Bytes{}, fmt.Errorf("making a secret of volume/%s: %w", volume.ID, err)
	}
	out.Secrets = append(out.Secrets, row)
	return key, nil
}

func (e *enrolling) newKey(purpose string) (secret.Bytes, error) {
	if purpose == PurposeRecovery {
		return recovery.NewKey(e.service.Random)
	}
	return newKeyslotSecret(e.service.Random)
}

// newKeyslotSecret draws what opens a keyslot: 32 bytes, none a line feed, since
// cryptsetup takes the keys of several keyslots only as lines. That leaves 255.8 of
// 256 bits.
func newKeyslotSecret(random io.Reader) (secret.Bytes, error) {
	for {
		key, err := secret.Random(random, keyslotSecret)
		if err != nil || bytes.IndexByte(key.Expose(), '\n') < 0 {
			return key, err
		}
		key.Wipe()
	}
}

// again delivers the secrets of an enrolment that was interrupted, in the order
// of the statement; resumes has matched its volumes with the state's.
func (e *enrolling) again(out *Outcome, state *State) error {
	for _, asked := range e.statement.Volumes {
		if err := e.repeat(out, state, findVolume(state.Volumes, asked.ID)); err != nil {
			return err
		}
	}
	return nil
}

// repeat delivers the secrets of a volume again.
func (e *enrolling) repeat(out *Outcome, state *State, volume *Volume) error {
	row := findFirst(state.Secrets, volume.ID, PurposeKeyslot)
	if row == nil {
		return fmt.Errorf("resuming an enrolment: volume/%s has no secret", volume.ID)
	}
	key, err := e.unwrap(volume, row, PurposeKeyslot)
	if err != nil {
		return err
	}
	return e.deliver(out, volume, row.Version, key, findFirst(state.Secrets, volume.ID, PurposeRecovery))
}

func (e *enrolling) unwrap(volume *Volume, row *Secret, purpose string) (secret.Bytes, error) {
	key, err := e.service.Keys.Unwrap(secretContext(e.binding, volume.Machine, row, purpose), row.Wrapped)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("resuming an enrolment: volume/%s: %w", volume.ID, err)
	}
	return key, nil
}

// deliver hands out a volume's secret, and beside it the recovery key that is
// known, or a new one where the machine wants one. One that is known it gets in
// any case: an interrupted run may have made a keyslot of it.
func (e *enrolling) deliver(out *Outcome, volume *Volume, version uint32, key secret.Bytes, known *Secret) (err error) {
	released := exchange.ReleasedSecret{
		Volume: volume.ID, UUID: volume.UUID, Version: version, Resume: [16]byte(volume.Resume), Key: key,
	}
	switch {
	case known != nil:
		released.RecoveryVersion = known.Version
		released.Recovery, err = e.unwrap(volume, known, PurposeRecovery)
	case !e.details.NoRecoveryKey:
		released.RecoveryVersion = 1
		released.Recovery, err = e.newSecret(out, volume, PurposeRecovery)
	}
	// What was unwrapped is wiped with the release, whatever comes.
	e.release.Secrets = append(e.release.Secrets, released)
	return err
}

// newRecoveryKeys counts the recovery keys that an outcome makes.
func newRecoveryKeys(out *Outcome) int {
	count := 0
	for _, s := range out.Secrets {
		if s.Purpose == PurposeRecovery {
			count++
		}
	}
	return count
}
