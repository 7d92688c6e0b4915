package unlock

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
)

// begin sends the TPM's keys and gets a credential for them.
func (e *Enrollment) begin(ctx context.Context) error { return e.asking.persist(ctx, e.beginOnce) }

func (e *Enrollment) beginOnce(ctx context.Context) error {
	keys, err := e.keys()
	if err != nil {
		return err
	}
	begun, err := call(ctx, e.to().Host, func(ctx context.Context) (api.BeginResponse, error) {
		return e.to().Begin(ctx, api.BeginRequest{Keys: keys})
	})
	if err != nil {
		return err
	}
	e.challenge = &begun
	return nil
}

func (e *Enrollment) keys() (api.TPMKeys, error) {
	certificate, err := e.TPM.Certificate()
	if err != nil {
		return api.TPMKeys{}, fail(CodeTPM, err)
	}
	return api.TPMKeys{EK: e.TPM.EK().Public, EKCertificate: certificate, AK: e.TPM.AK().Public}, nil
}

// complete proves the credential over the quoted statement and keeps the secrets
// that come back.
func (e *Enrollment) complete(ctx context.Context) error {
	return e.asking.persist(ctx, e.completeOnce)
}

func (e *Enrollment) completeOnce(ctx context.Context) error {
	if e.challenge == nil {
		if err := e.beginOnce(ctx); err != nil {
			return err
		}
	}
	recipient, err := exchange.NewRecipient()
	if err != nil {
		return err
	}
	request, err := e.completeRequest(recipient)
	if err != nil {
		return err
	}
	e.challenge = nil // whatever comes back, it may be spent
	response, err := call(ctx, e.to().Host, func(ctx context.Context) (api.CompleteResponse, error) { return e.to().Complete(ctx, request) })
	if err != nil {
		return err
	}
	release, err := open(e.Pins[e.asking.pin], recipient, request.Statement, response.Sealed)
	if err != nil {
		return fail(CodeUntrusted, err)
	}
	if err := e.keep(release); err != nil {
		release.Wipe()
		return err
	}
	return nil
}

func (e *Enrollment) completeRequest(recipient *exchange.Recipient) (api.CompleteRequest, error) {
	keys, err := e.keys()
	if err != nil {
		return api.CompleteRequest{}, err
	}
	details, err := exchange.MarshalDetails(exchange.EnrollDetails{Name: e.Name, Add: e.adding, NoRecoveryKey: e.NoRecoveryKey})
	if err != nil {
		return api.CompleteRequest{}, err
	}
	statement := exchange.Statement{
		Purpose: exchange.PurposeEnroll, ServiceKey: e.Pins[e.asking.pin], Recipient: recipient.PublicKey(), Details: details,
	}
	for _, t := range e.targets {
		statement.Volumes = append(statement.Volumes, t.asked())
	}
	attested, err := attest(e.TPM, e.EventLog, e.challenge.Challenge, statement)
	if err != nil {
		return api.CompleteRequest{}, err
	}
	credential, err := e.TPM.ActivateCredential(e.challenge.Credential, e.challenge.EncryptedSecret)
	if err != nil {
		return api.CompleteRequest{}, fail(CodeTPM, err)
	}
	defer credential.Wipe()
	proof := exchange.EnrollProof(credential, attested.Statement)
	return api.CompleteRequest{Attested: attested, Keys: keys, Proof: proof[:]}, nil
}

// asked names the volume, with the ids that an interrupted enrolment left in a
// token.
func (t *target) asked() exchange.Volume {
	v := exchange.Volume{UUID: t.uuid(), Identity: t.identity}
	for _, token := range t.volume.OwnTokens() {
		resume, err := hex.DecodeString(token.Resume)
		if err == nil && len(resume) == len(v.Resume) {
			v.ID, v.Resume = token.Volume, [16]byte(resume)
		}
	}
	return v
}

// keep hands every volume its secret.
func (e *Enrollment) keep(release *exchange.Release) error {
	if len(release.Secrets) != len(e.targets) {
		return fail(CodeUntrusted, fmt.Errorf("the service answered for %d volumes, %d were asked for", len(release.Secrets), len(e.targets)))
	}
	for i, s := range release.Secrets {
		t := e.targets[i]
		if s.UUID != t.uuid() || s.Volume == "" || s.Resume == [16]byte{} {
			return fail(CodeUntrusted, fmt.Errorf("the service did not answer for %s", t.path))
		}
		if s.Recovery.Len() == 0 && !e.NoRecoveryKey {
			return fail(CodeUntrusted, fmt.Errorf("the service gave no recovery key for %s", t.path))
		}
	}
	for i, s := range release.Secrets {
		e.targets[i].secret = s
	}
	return nil
}

func (e *Enrollment) predictBoot(context.Context) (err error) {
	e.forecast, err = e.NextBoot.predict()
	if e.forecast.unknown != nil {
		e.say("note: %v: the next boot is expected to measure as this one did", e.forecast.unknown)
	}
	return err
}

// updateInitramfs has the files of the next boot made, where it can, before they
// are looked at once more.
func (e *Enrollment) updateInitramfs(ctx context.Context) error {
	if e.Initramfs == nil {
		return nil
	}
	if err := e.makeInitramfs(ctx); err != nil {
		return err
	}
	return e.predictBoot(ctx)
}

func (e *Enrollment) makeInitramfs(ctx context.Context) error {
	if e.Initramfs == nil {
		return nil
	}
	return e.Initramfs(ctx)
}

// commit reports the headers as they are now and what the next boot will be.
func (e *Enrollment) commit(ctx context.Context) error {
	next := e.forecast
	response, err := e.sendCommit(ctx, next)
	var refused *Failure
	if errors.As(err, &refused) && refused.Code == api.CodeMeasurement && next.found {
		e.say("note: the service cannot lay %s over this boot: the next boot is expected to measure as this one did", next.from)
		next = forecast{from: asThisBoot}
		response, err = e.sendCommit(ctx, next)
	}
	if err != nil {
		return err
	}
	if err := e.conclude(response, next.from); err != nil {
		return err
	}
	return e.forgetSet()
}

// conclude keeps what the service answered to a commit.
func (e *Enrollment) conclude(response api.CommitResponse, from string) error {
	e.result = Enrolled{
		Machine: e.TPM.EK().MachineID(), Name: e.Name, Status: response.Status, NextBoot: from,
		Measurement: response.Measurement, Platform: response.Platform,
	}
	for _, t := range e.targets {
		_, slot, err := t.slot(luks.PurposeBoot)
		if err != nil {
			return err
		}
		e.result.Volumes = append(e.result.Volumes, EnrolledVolume{
			ID: t.secret.Volume, UUID: t.uuid(), Device: t.path, Slot: slot, Name: t.mapping(),
			RecoverySlots: t.volume.SlotsFor(t.secret.Volume, luks.PurposeRecovery),
		})
	}
	return nil
}

func (e *Enrollment) sendCommit(ctx context.Context, next forecast) (response api.CommitResponse, err error) {
	err = e.asking.persist(ctx, func(ctx context.Context) error {
		response, err = e.commitOnce(ctx, next)
		return err
	})
	return response, err
}

func (e *Enrollment) commitOnce(ctx context.Context, next forecast) (none api.CommitResponse, err error) {
	statement, err := e.commitStatement(next)
	if err != nil {
		return none, err
	}
	_, answer, err := inquire(ctx, evidence{e.TPM, e.EventLog}, e.to().Host, statement, e.to().CommitChallenge,
		func(ctx context.Context, a api.Attested) (api.CommitResponse, error) {
			return e.to().Commit(ctx, api.CommitRequest{Attested: a})
		})
	return answer, err
}

func (e *Enrollment) commitStatement(next forecast) (exchange.Statement, error) {
	details := exchange.CommitDetails{CommandLine: commandLine(), NextBoot: next.claims, Add: e.adding}
	s := exchange.Statement{Purpose: exchange.PurposeCommit, ServiceKey: e.Pins[e.asking.pin]}
	for _, t := range e.targets {
		s.Volumes = append(s.Volumes, exchange.Volume{ID: t.secret.Volume, UUID: t.uuid(), Identity: t.identity})
		about, err := report(t.secret.Volume, t.volume)
		if err != nil {
			return s, err
		}
		details.Volumes = append(details.Volumes, about)
	}
	var err error
	s.Details, err = exchange.MarshalDetails(details)
	return s, err
}

// writeConfig writes which volumes a boot opens, the root's first, as passphrases
// are asked for; and keeps what an earlier configuration says of them.
func (e *Enrollment) writeConfig(context.Context) error {
	c := e.Config
	old := c.Volumes
	c.Volumes = nil
	for _, t := range e.targets {
		c.Volumes = append(c.Volumes, configFor(t, old, t.Root && e.roots() == 1))
	}
	slices.SortStableFunc(c.Volumes, rootFirst)
	if err := checkVolumes(c.Volumes); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	err := c.Write(e.ConfigPath)
	if errors.Is(err, ErrForeignConfig) {
		e.say("note: %s stays as it is: %v", e.ConfigPath, ErrForeignConfig)
		return nil
	}
	return err
}

func rootFirst(a, b VolumeConfig) int {
	switch {
	case a.Root == b.Root:
		return 0
	case a.Root:
		return -1
	default:
		return 1
	}
}

// configFor marks a root only where it is the only one: of several, all have to
// be mappings of the boot.
func configFor(t *target, old []VolumeConfig, root bool) VolumeConfig {
	for _, v := range old {
		if v.Device == t.path || v.Device == "UUID="+t.uuid() {
			return v
		}
	}
	return VolumeConfig{Device: "UUID=" + t.uuid(), Name: t.mapping(), Root: root, Options: t.Options}
}

// mapping returns what the volume's mapping is called, unless it was configured
// before.
func (t *target) mapping() string {
	if luks.CheckName(t.Name) != nil {
		return "luks-" + t.uuid()
	}
	return t.Name
}
