package sim

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"slices"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// RekeyGuest is the service as machines see it that rekey a volume;
// [api.GuestClient] is one.
type RekeyGuest interface {
	RekeyChallenge(ctx context.Context) (api.Challenge, error)
	Rekey(ctx context.Context, r api.RekeyRequest) (api.RekeyResponse, error)
	KeepHeader(ctx context.Context, r api.HeaderCopyRequest) (api.HeaderCopyResponse, error)
	RekeyedChallenge(ctx context.Context) (api.Challenge, error)
	Rekeyed(ctx context.Context, r api.RekeyedRequest) (api.RekeyedResponse, error)
}

// Keyslot is one of the service's for boots, in the header of a simulated volume.
type Keyslot struct {
	Slot    int
	Version uint32
	Key     secret.Bytes
}

// AddKeyslot gives a volume a keyslot for a version of its secret.
func (v *Volume) AddKeyslot(version uint32, key secret.Bytes) {
	slot := 3
	for v.hasSlot(slot) {
		slot++
	}
	v.Own = append(v.Own, Keyslot{slot, version, key.Clone()})
	v.Slots = append(v.Slots, exchange.LUKSSlot{ID: slot, KDF: "pbkdf2", Priority: 1, Mark: fmt.Sprintf("%08x", version)})
}

func (v *Volume) hasSlot(slot int) bool {
	return slices.ContainsFunc(v.Slots, func(s exchange.LUKSSlot) bool { return s.ID == slot })
}

// KillKeyslots removes the service's keyslots of all versions but one.
func (v *Volume) KillKeyslots(version uint32) {
	for _, own := range v.Own {
		if own.Version != version {
			v.Slots = slices.DeleteFunc(v.Slots, func(s exchange.LUKSSlot) bool { return s.ID == own.Slot })
		}
	}
	v.Own = slices.DeleteFunc(v.Own, func(own Keyslot) bool { return own.Version != version })
}

// Opens tells whether a keyslot of the service has this key.
func (v *Volume) Opens(key secret.Bytes) bool {
	return slices.ContainsFunc(v.Own, func(own Keyslot) bool { return own.Key.Equal(key) })
}

// ownTokens are those of the service's keyslots for boots.
func (v *Volume) ownTokens() (tokens []exchange.LUKSToken) {
	for i, own := range v.Own {
		tokens = append(tokens, exchange.LUKSToken{ID: 10 * i, Type: "keywright", Slots: []int{own.Slot}, Volume: v.ID, Version: own.Version})
	}
	return tokens
}

// PrepareRekey asks for a challenge and makes an honest statement about one volume.
func (m *Machine) PrepareRekey(ctx context.Context, g RekeyGuest, volume int) (*Request, error) {
	challenge, err := g.RekeyChallenge(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for a challenge: %w", err)
	}
	return m.prepareOne(exchange.PurposeRekey, challenge, volume, exchange.RekeyDetails{Becomes: m.Volumes[volume].Becomes})
}

// AskRekey returns the current secret of a volume, and the next one.
func (m *Machine) AskRekey(ctx context.Context, g RekeyGuest, volume int) (*exchange.ReleasedSecret, error) {
	r, err := m.PrepareRekey(ctx, g, volume)
	if err != nil {
		return nil, err
	}
	return r.Rekey(ctx, g)
}

// Rekey sends the request and opens the answer.
func (r *Request) Rekey(ctx context.Context, g RekeyGuest) (*exchange.ReleasedSecret, error) {
	attested, err := r.Attest()
	if err != nil {
		return nil, err
	}
	answer, err := g.Rekey(ctx, api.RekeyRequest{Attested: attested})
	if err != nil {
		return nil, fmt.Errorf("asking for a rekey: %w", err)
	}
	release, err := r.Open(attested.Statement, answer.Sealed)
	if err != nil {
		return nil, fmt.Errorf("opening a rekey: %w", err)
	}
	if len(release.Secrets) != 1 {
		return nil, fmt.Errorf("%d secrets for one volume", len(release.Secrets))
	}
	r.machine.Receipt = release.Entry
	return &release.Secrets[0], nil
}

// Report tells what became of a rekey; the report of the volume's header is added.
func (m *Machine) Report(ctx context.Context, g RekeyGuest, volume int, details exchange.RekeyedDetails) (exchange.RekeyAnswer, error) {
	challenge, err := g.RekeyedChallenge(ctx)
	if err != nil {
		return exchange.RekeyAnswer{}, fmt.Errorf("asking for a challenge: %w", err)
	}
	details.Volume = m.report(&m.Volumes[volume])
	r, err := m.prepareOne(exchange.PurposeRekeyed, challenge, volume, details)
	if err != nil {
		return exchange.RekeyAnswer{}, err
	}
	attested, err := r.Attest()
	if err != nil {
		return exchange.RekeyAnswer{}, err
	}
	answer, err := g.Rekeyed(ctx, api.RekeyedRequest{Attested: attested})
	if err != nil {
		return exchange.RekeyAnswer{}, fmt.Errorf("reporting a rekey: %w", err)
	}
	pins, signed := [][32]byte{m.ServiceKey}, answer.Signed
	if err := exchange.VerifyResponse(pins, signed.ServiceKey, attested.Statement, signed.Response, signed.Signature); err != nil {
		return exchange.RekeyAnswer{}, err
	}
	return exchange.ParseRekeyAnswer(signed.Response)
}

// Rekey does what an agent does about an order of a volume.
func (m *Machine) Rekey(ctx context.Context, g RekeyGuest, volume int) error {
	got, err := m.AskRekey(ctx, g, volume)
	if err != nil {
		return err
	}
	return m.FinishRekey(ctx, g, volume, got)
}

// FinishRekey goes on with secrets that a boot or a running system received.
func (m *Machine) FinishRekey(ctx context.Context, g RekeyGuest, volume int, got *exchange.ReleasedSecret) error {
	v := &m.Volumes[volume]
	version := got.Version
	if got.NextVersion > 0 {
		if version = got.NextVersion; !v.Opens(got.Next) {
			if err := m.KeepHeader(ctx, g, volume, got); err != nil {
				return err
			}
			v.AddKeyslot(version, got.Next)
		}
		answer, err := m.Report(ctx, g, volume, exchange.RekeyedDetails{Version: version})
		if err != nil {
			return err
		}
		if answer != (exchange.RekeyAnswer{Version: version, Status: exchange.RekeyCommitted}) {
			return fmt.Errorf("the report was answered with %+v", answer)
		}
	}
	v.KillKeyslots(version)
	answer, err := m.Report(ctx, g, volume, exchange.RekeyedDetails{Version: version, Done: true})
	if err == nil && answer.Status != exchange.RekeyFinished && answer.Status != exchange.RekeyRekeyed {
		err = fmt.Errorf("the report was answered with %+v", answer)
	}
	return err
}

// Header is what stands in for a volume's header in its copies: compressed, as they
// are.
func (v *Volume) Header() []byte {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = fmt.Fprint(w, "LUKS", v.UUID, v.Slots) // memory takes all
	_ = w.Close()
	return packed.Bytes()
}

// KeepHeader sends the copy of a volume's header from before a rekey.
func (m *Machine) KeepHeader(ctx context.Context, g RekeyGuest, volume int, got *exchange.ReleasedSecret) error {
	v := &m.Volumes[volume]
	sealed, err := exchange.SealHeaderCopy(got.HeaderKey, v.ID, got.NextVersion, v.Header())
	if err != nil {
		return err
	}
	_, err = g.KeepHeader(ctx, api.HeaderCopyRequest{Machine: m.TPM.Machine(), Volume: v.ID, Version: got.NextVersion, Copy: sealed})
	if err != nil {
		return fmt.Errorf("sending the copy of a header: %w", err)
	}
	return nil
}

func (m *Machine) prepareOne(purpose exchange.Purpose, challenge api.Challenge, volume int, details any) (r *Request, err error) {
	if r, err = m.Prepare(purpose, challenge); err != nil {
		return nil, err
	}
	r.Statement.Volumes = r.Statement.Volumes[volume : volume+1]
	switch d := details.(type) {
	case exchange.RekeyDetails:
		r.Statement.Details, err = exchange.MarshalDetails(d)
	case exchange.RekeyedDetails:
		r.Statement.Details, err = exchange.MarshalDetails(d)
	}
	return r, err
}
