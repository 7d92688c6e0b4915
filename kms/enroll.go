package kms

import (
	"bytes"
	"context"
	"crypto/hmac"
	"fmt"
	"strconv"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
)

// Enrollment is the answer to the first step of an enrolment.
type Enrollment struct {
	Challenge                   Challenge
	Credential, EncryptedSecret []byte
}

// BeginEnrollment makes a credential that only a TPM with both keys can
// activate. It stores nothing.
func (s *Service) BeginEnrollment(_ context.Context, keys TPMKeys) (Enrollment, error) {
	ek, ak, refusal := checkKeys(keys)
	if refusal != nil {
		return Enrollment{}, refusal
	}
	challenge, err := s.Challenges.Issue(exchange.PurposeEnroll)
	if err != nil {
		return Enrollment{}, err
	}
	credential, err := s.Challenges.credentialSecret(challenge.Token, challenge.Nonce[:], ek.Name, ak.Name)
	if err != nil {
		return Enrollment{}, err
	}
	defer credential.Wipe()
	blob, encrypted, err := exchange.MakeCredential(s.Random, ek, ak, credential)
	if err != nil {
		return Enrollment{}, fmt.Errorf("making a credential: %w", err)
	}
	return Enrollment{Challenge: challenge, Credential: blob, EncryptedSecret: encrypted}, nil
}

// maxCertificate bounds the certificate of an endorsement key, in bytes of DER:
// they take 1 to 2 KB.
const maxCertificate = 8 << 10

func checkKeys(keys TPMKeys) (exchange.EK, exchange.AK, *Refusal) {
	ek, err := exchange.CheckEK(keys.EK)
	if err != nil {
		return exchange.EK{}, exchange.AK{}, refuse(ReasonKeys, "the EK is not of a standard template")
	}
	ak, err := exchange.CheckAK(keys.AK)
	if err != nil {
		return exchange.EK{}, exchange.AK{}, refuse(ReasonKeys, "the AK is not of the AK template")
	}
	if len(keys.EKCertificate) > maxCertificate {
		return exchange.EK{}, exchange.AK{}, refuse(ReasonKeys, "the EK's certificate has more than %d bytes", maxCertificate)
	}
	return ek, ak, nil
}

// CompleteEnrollment makes the machine pending, with a pending secret for each
// volume, and a pending recovery key unless the machine wants none. A machine
// that is pending already gets the same secrets again where it shows their
// resume ids, and may start anew before its commit. An active machine may add
// volumes.
func (s *Service) CompleteEnrollment(ctx context.Context, a Attested, keys TPMKeys, proof []byte) (Sealed, error) {
	e, err := s.beginComplete(ctx, a, keys, proof)
	if err != nil {
		return Sealed{}, s.unproven(err, a.Source)
	}
	defer e.release.Wipe()
	if err := s.transact(ctx, e.key(), e.decide); err != nil {
		if e.stranger {
			return Sealed{}, s.unproven(err, a.Source)
		}
		return Sealed{}, err
	}
	return s.seal(e.verified, &e.release)
}

// maxPending bounds the machines that wait for approval while nobody vouches for
// them: anybody can ask who makes the likeness of a TPM.
const maxPending = 10_000

func (s *Service) pendingIsFull(ctx context.Context) (bool, error) {
	counts, err := s.Store.Counts(ctx)
	if err != nil {
		return false, fmt.Errorf("counting machines: %w", err)
	}
	return counts.Machines[MachinePending] >= s.maxPending, nil
}

// enrolling is one enrolment at its second step.
type enrolling struct {
	*verified
	service    *Service
	attested   Attested
	keys       TPMKeys
	redemption Redemption
	trust      string
	details    exchange.EnrollDetails
	release    exchange.Release
	// full tells that as many machines wait as may.
	full bool
	// stranger is set by a decision about a machine that is not known.
	stranger bool
}

// beginComplete proves that EK and AK share a TPM that signed the statement.
func (s *Service) beginComplete(ctx context.Context, a Attested, keys TPMKeys, proof []byte) (*enrolling, error) {
	redemption, err := s.Challenges.Check(exchange.PurposeEnroll, a.Challenge, a.Token)
	if err != nil {
		return nil, err
	}
	ek, ak, refusal := checkKeys(keys)
	if refusal != nil {
		return nil, refusal
	}
	if a.Machine != ek.MachineID() {
		return nil, refuse(ReasonKeys, "the machine id is not the hash of the EK")
	}
	credential, err := s.Challenges.credentialSecret(a.Token, a.Challenge, ek.Name, ak.Name)
	if err != nil {
		return nil, err
	}
	defer credential.Wipe()
	if want := exchange.EnrollProof(credential, a.Statement); !hmac.Equal(want[:], proof) {
		return nil, refuse(ReasonCredential, "the credential was not activated by the TPM that holds both keys")
	}
	v, refusal := s.verify(exchange.PurposeEnroll, &a, ek, ak)
	if refusal != nil {
		return nil, refusal
	}
	if !s.limits.allow(a.Machine) {
		return nil, refuse(ReasonRate, "the machine asks too often")
	}
	e := &enrolling{verified: v, service: s, attested: a, keys: keys, redemption: redemption}
	if e.release.ID, err = s.random32(); err != nil {
		return nil, err
	}
	if e.full, err = s.pendingIsFull(ctx); err != nil {
		return nil, err
	}
	e.readDetails()
	return e, nil
}

// readDetails parses the details and judges the EK's certificate.
func (e *enrolling) readDetails() {
	details, err := exchange.ParseDetails[exchange.EnrollDetails](e.statement.Details)
	e.details = details
	switch {
	case e.refusal != nil:
		return
	case err != nil:
		e.refusal = refuse(ReasonMalformed, "the details of the statement cannot be parsed")
		return
	}
	basis, err := e.service.Trust(e.ek, e.keys.EKCertificate, e.service.Clock())
	if err != nil {
		e.refusal = refuseEvidence(ReasonKeys, err)
		return
	}
	e.trust = basis
}

func (e *enrolling) key() Key {
	key := Key{
		Machine: e.attested.Machine, Recovery: true, Announced: !e.details.Add,
		AKName: e.ak.Name, Challenge: &e.redemption.Challenge,
	}
	if e.refusal == nil && e.details.Add {
		platform := e.boot.Platform.Digest()
		key.Measurements, key.Platform = [][32]byte{e.boot.Measurement.Digest()}, &platform
	}
	return key
}

// decide is the decision about one enrolment.
func (e *enrolling) decide(state State) (Outcome, *Refusal, error) {
	e.release.Wipe()
	e.release.Secrets, e.release.Entry = nil, nil
	e.stranger = state.Machine == nil
	state.Volumes = presentVolumes(state.Volumes)
	action, judge, admit := ActionEnroll, e.judge, e.admit
	if e.details.Add {
		action, judge, admit = ActionAddVolume, e.judgeAdding, e.add
	}
	d := machineDraft(action, &e.attested)
	if state.Redeemed {
		return e.refused(Outcome{}, d, refuseReplay())
	}
	d.fact("ek.trust", "", e.trust)
	out := Outcome{Redeem: &e.redemption}
	if refusal := judge(&state, &d); refusal != nil {
		return e.refused(out, d, refusal)
	}
	if err := admit(&out, &state, &d); err != nil {
		return Outcome{}, nil, err
	}
	d.release = hexDigest(e.release.ID)
	d.fact("recovery.keys", "", strconv.Itoa(newRecoveryKeys(&out)))
	out, err := e.service.entered(out, d, audit.Allowed, nil)
	if err != nil {
		return Outcome{}, nil, err
	}
	e.release.Entry = out.Entries[0].Signed.Marshal()
	return out, nil, nil
}

// refused records a refusal of a machine that is known. Anybody can make keys of
// his own and be refused with them: those are counted.
func (e *enrolling) refused(out Outcome, d draft, refusal *Refusal) (Outcome, *Refusal, error) {
	if e.stranger {
		return out, refusal, nil
	}
	return e.service.refused(out, d, refusal)
}

// judge refuses an enrolment that would change a binding: only an operator can.
func (e *enrolling) judge(state *State, _ *draft) *Refusal {
	if e.refusal != nil {
		return e.refusal
	}
	if state.AKHolder != "" && state.AKHolder != e.attested.Machine {
		return refuse(ReasonEnrolled, "the TPM is enrolled already under another endorsement key")
	}
	if refusal := e.judgeUUIDs(); refusal != nil {
		return refusal
	}
	m, now := state.Machine, e.service.Clock()
	switch {
	case m == nil && e.full && e.trust == TrustByPerson:
		return refuse(ReasonRate, "%d machines wait for approval already: approve or revoke some", e.service.maxPending)
	case m == nil:
		return nil
	case m.Status == MachineRevoked && !m.mayReenroll(now):
		return refuse(ReasonRevoked, "the machine is revoked")
	case !bytes.Equal(m.AK, e.keys.AK):
		return refuse(ReasonEnrolled, "the machine is enrolled with another attestation key")
	case m.mayReenroll(now):
		return nil
	case !e.mayBegin(m) && !e.resumes(state):
		return refuse(ReasonEnrolled, "the machine is enrolled already and shows no open resume id: a copied vTPM?")
	case m.wentBack(e.boot.Counters, now):
		return refuse(ReasonCounters, "the TPM's counters went back since the enrolment began")
	default:
		return nil
	}
}

func (e *enrolling) judgeUUIDs() *Refusal {
	for i, v := range e.statement.Volumes {
		if !validUUID(v.UUID) {
			return refuse(ReasonVolume, "volume %d of the statement has no LUKS UUID", i+1)
		}
		if i > 0 && e.statement.Volumes[i-1].UUID >= v.UUID {
			return refuse(ReasonVolume, "the volumes of the statement are not in ascending order of UUID")
		}
	}
	return nil
}

// mayBegin tells whether the machine may begin its enrolment anew: nobody approved
// it yet, and it wrote nothing to disk as far as the service knows.
func (e *enrolling) mayBegin(m *Machine) bool {
	return m.Status == MachinePending && !m.Committed && m.Name == ""
}

// resumes tells whether the statement of a pending machine shows the resume id of
// every volume.
func (e *enrolling) resumes(state *State) bool {
	if state.Machine.Status != MachinePending || len(e.statement.Volumes) != len(state.Volumes) {
		return false
	}
	for _, asked := range e.statement.Volumes {
		known := findVolume(state.Volumes, asked.ID)
		if known == nil || known.UUID != asked.UUID || !hmac.Equal(known.Resume, asked.Resume[:]) {
			return false
		}
	}
	return true
}

// admit writes the machine and its volumes, or reads them again. Volumes that were
// committed are kept where the machine enrols again: it has their secrets. What it
// staged is not: that was the word of the system before.
func (e *enrolling) admit(out *Outcome, state *State, d *draft) error {
	if state.Machine != nil && e.resumes(state) {
		return e.again(out, state)
	}
	if state.Machine != nil {
		d.fact("status", string(state.Machine.Status), string(MachinePending))
	}
	for _, v := range state.Volumes {
		if v.Status == VolumePending {
			out.DropVolumes = append(out.DropVolumes, v.ID)
			continue
		}
		d.fact("volume.former", "", v.ID)
		v.Status, v.Resume, v.Foreign, v.Copied = VolumeFormer, nil, false, false
		out.DropOrders = append(out.DropOrders, v.ID)
		out.DropSecrets = append(out.DropSecrets, madeFor(state.Secrets, v.ID)...)
		out.Volumes = append(out.Volumes, v)
	}
	out.DropPlatforms = stagedPlatforms(state.Platforms)
	out.Machine = e.newMachine(state.Machine)
	for _, asked := range e.statement.Volumes {
		if err := e.addVolume(out, asked, keyringFor(state.Volumes)); err != nil {
			return err
		}
	}
	return nil
}

// newMachine returns the machine's row. One that begins anew gets no younger, and
// one that enrols again keeps its name.
func (e *enrolling) newMachine(before *Machine) *Machine {
	proposed := e.details.Name
	if !validMachineName(proposed) {
		proposed = "machine-" + exchange.ShortID(e.attested.Machine)
	}
	m := &Machine{
		ID: e.attested.Machine, Proposed: proposed, Group: DefaultGroup, Status: MachinePending,
		EK: e.keys.EK, EKCert: e.keys.EKCertificate, AK: e.keys.AK, AKName: e.ak.Name, Trust: e.trust,
		Tier: string(e.boot.Tier), Counters: e.boot.Counters, Created: e.service.Clock(),
	}
	if before != nil {
		m.Name, m.Group, m.Created, m.ReenrollUntil = before.Name, before.Group, before.Created, before.ReenrollUntil
		m.LastRelease, m.LastRefusal = before.LastRelease, before.LastRefusal
	}
	return m
}
