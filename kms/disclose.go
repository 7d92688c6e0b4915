package kms

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// SealRecoveryKey is [Service.DiscloseRecoveryKey], sealed to the recipient key of
// whoever asked for it, and bound to what he called the volume.
func (s *Service) SealRecoveryKey(ctx context.Context, by Operator, v *Volume, version uint32, called string, recipient []byte) (Sealed, error) {
	to, statement, err := disclosureTo(called, version, recipient)
	if err != nil {
		return Sealed{}, err
	}
	key, err := s.DiscloseRecoveryKey(ctx, by, v, version)
	if err != nil {
		return Sealed{}, err
	}
	defer key.Wipe()
	return s.sealDisclosure(to, statement, key)
}

// disclosureTo reads who a key is disclosed to, before anything is.
func disclosureTo(called string, version uint32, recipient []byte) (exchange.RecipientKey, []byte, error) {
	to, err := exchange.ParseRecipientKey(recipient)
	if err != nil {
		return to, nil, usage("the recipient key is not one that an answer can be sealed to")
	}
	statement, err := exchange.DisclosureStatement(called, version, recipient)
	return to, statement, err
}

func (s *Service) sealDisclosure(to exchange.RecipientKey, statement []byte, key secret.Bytes) (Sealed, error) {
	response, err := exchange.SealDisclosure(to, statement, key)
	if err != nil {
		return Sealed{}, err
	}
	return s.sign(s.ServiceKey(), statement, response)
}

// DiscloseRecoveryKey returns a volume's recovery key: the current version for 0, or
// the one of that number, which images of the disk from before a reencryption open
// with. That it was disclosed, and to whom, is durable before. The caller wipes the
// key. A dry run is refused: what was shown was disclosed.
func (s *Service) DiscloseRecoveryKey(ctx context.Context, by Operator, v *Volume, version uint32) (secret.Bytes, error) {
	if by.DryRun {
		return secret.Bytes{}, usage("a recovery key cannot be disclosed in a dry run")
	}
	d := &disclosing{service: s, by: by, volume: v.ID, version: version}
	if err := s.change(ctx, by, Key{Machine: v.Machine, Recovery: true}, d.decide); err != nil {
		d.key.Wipe()
		return secret.Bytes{}, fmt.Errorf("disclosing the recovery key of volume/%s: %w", v.ID, err)
	}
	return d.key, nil
}

// disclosing is one disclosure under way.
type disclosing struct {
	service *Service
	by      Operator
	volume  string
	version uint32
	key     secret.Bytes
}

func (d *disclosing) decide(state State) (Outcome, error) {
	d.key.Wipe()
	volume := findVolume(state.Volumes, d.volume)
	if state.Machine == nil || volume == nil {
		return Outcome{}, ErrNotFound
	}
	row, err := d.row(state.Secrets)
	if err != nil {
		return Outcome{}, err
	}
	if d.key, err = d.service.openFor(state.Machine, row); err != nil {
		return Outcome{}, err
	}
	entry := d.by.draft(ActionDiscloseRecovery, volume.Machine, volumeObject(volume.ID))
	entry.fact("volume.uuid", "", volume.UUID)
	entry.fact("secret.version", "", strconv.FormatUint(uint64(row.Version), 10))
	entry.fact("disclosed", formatTime(row.Disclosed), formatTime(d.service.Clock()))
	disclosed := *row
	disclosed.Disclosed = d.service.Clock()
	return d.service.entered(Outcome{Secrets: []Secret{disclosed}}, entry, audit.Done, nil)
}

// row finds the version that is asked for. Of one that is pending nobody knows yet
// whether a keyslot has it.
func (d *disclosing) row(secrets []Secret) (*Secret, error) {
	if d.version == 0 {
		if row := findSecret(secrets, d.volume, PurposeRecovery, SecretCurrent); row != nil {
			return row, nil
		}
		return nil, disallow("it has no recovery key: its enrolment left that out, or is not finished")
	}
	if row := findVersionOf(secrets, d.volume, PurposeRecovery, d.version); row != nil && row.Status != SecretPending {
		return row, nil
	}
	return nil, disallow("it has no version %d of a recovery key that is current or restore-only: `keywright volume show` lists those that there are", d.version)
}

// openFor unwraps a secret without its machine, which may be gone: the names are those of the row's keys, and the EK must be the one that is the
// machine's id.
func (s *Service) openFor(m *Machine, row *Secret) (secret.Bytes, error) {
	ek, ak, refusal := keysOf(m)
	if refusal != nil {
		return secret.Bytes{}, errors.New(refusal.Detail)
	}
	return s.Keys.Unwrap(secretContext(bindingOf(ek, ak), m.ID, row, row.Purpose), row.Wrapped)
}

// RecoveryCopy is a volume's recovery key as it was encrypted to people.
type RecoveryCopy struct {
	Volume  Volume
	Version uint32
	Created time.Time
	Age     string // armored
}

// RecoveryCopyOf returns the copy of one volume's recovery key. That it was let
// out is recorded before.
func (s *Service) RecoveryCopyOf(ctx context.Context, by Operator, v *Volume) (*RecoveryCopy, error) {
	found, err := s.recoveryCopy(ctx, v)
	switch {
	case err != nil:
		return nil, err
	case found == nil:
		return nil, disallow("there is no age copy of its recovery key: it has none, or recovery.age_recipients named nobody when it was made")
	}
	return found, s.Record(ctx, by, ActionExportCopies, volumeObject(v.ID), audit.Done, countFact(1))
}

// RecoveryCopies returns the copies of the volumes' recovery keys, without those
// of which there is none. That they were let out is recorded before.
func (s *Service) RecoveryCopies(ctx context.Context, by Operator, volumes []Volume) ([]RecoveryCopy, error) {
	copies := []RecoveryCopy{}
	for i := range volumes {
		found, err := s.recoveryCopy(ctx, &volumes[i])
		if err != nil {
			return nil, err
		}
		if found != nil {
			copies = append(copies, *found)
		}
	}
	return copies, s.Record(ctx, by, ActionExportCopies, "", audit.Done, countFact(len(copies)))
}

func (s *Service) recoveryCopy(ctx context.Context, v *Volume) (*RecoveryCopy, error) {
	secrets, err := s.Store.Secrets(ctx, v.ID)
	if err != nil {
		return nil, fmt.Errorf("reading the secrets of volume/%s: %w", v.ID, err)
	}
	row := findSecret(secrets, v.ID, PurposeRecovery, SecretCurrent)
	if row == nil || row.AgeCopy == "" {
		return nil, nil //nolint:nilnil // no copy is not an error
	}
	return &RecoveryCopy{Volume: *v, Version: row.Version, Created: row.Created, Age: row.AgeCopy}, nil
}

func countFact(copies int) audit.Fact { return audit.Fact{Name: "copies", Is: strconv.Itoa(copies)} }

// formatTime is empty for the zero time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
