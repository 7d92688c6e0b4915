package sim

import (
	"context"
	"fmt"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// Keys are what the machine shows to enrol.
func (m *Machine) Keys() api.TPMKeys {
	return api.TPMKeys{EK: m.TPM.EKPublic, AK: m.TPM.AKPublic}
}

// Enroll runs all steps of an enrolment.
func (m *Machine) Enroll(ctx context.Context, g Guest) error {
	if err := m.Complete(ctx, g); err != nil {
		return err
	}
	_, err := m.Commit(ctx, g)
	return err
}

// Complete runs an enrolment up to the delivery of the volumes' secrets.
func (m *Machine) Complete(ctx context.Context, g Guest) error {
	begun, err := g.Begin(ctx, api.BeginRequest{Keys: m.Keys()})
	if err != nil {
		return fmt.Errorf("beginning: %w", err)
	}
	r, err := m.Prepare(exchange.PurposeEnroll, begun.Challenge)
	if err != nil {
		return err
	}
	request, err := r.CompleteRequest(begun)
	if err != nil {
		return err
	}
	answer, err := g.Complete(ctx, request)
	if err != nil {
		return fmt.Errorf("completing: %w", err)
	}
	release, err := r.Open(request.Statement, answer.Sealed)
	if err != nil {
		return fmt.Errorf("opening what completes: %w", err)
	}
	return m.keep(release)
}

// CompleteRequest activates the credential and proves it over the statement.
func (r *Request) CompleteRequest(begun api.BeginResponse) (api.CompleteRequest, error) {
	credential, err := r.machine.TPM.ActivateCredential(begun.Credential, begun.EncryptedSecret)
	if err != nil {
		return api.CompleteRequest{}, err
	}
	defer credential.Wipe()
	attested, err := r.Attest()
	if err != nil {
		return api.CompleteRequest{}, err
	}
	proof := exchange.EnrollProof(credential, attested.Statement)
	return api.CompleteRequest{Attested: attested, Keys: r.machine.Keys(), Proof: proof[:]}, nil
}

// Commit tells that the keyslots are in place.
func (m *Machine) Commit(ctx context.Context, g Guest) (api.CommitResponse, error) {
	challenge, err := g.CommitChallenge(ctx)
	if err != nil {
		return api.CommitResponse{}, fmt.Errorf("asking for a challenge: %w", err)
	}
	r, err := m.Prepare(exchange.PurposeCommit, challenge)
	if err != nil {
		return api.CommitResponse{}, err
	}
	attested, err := r.Attest()
	if err != nil {
		return api.CommitResponse{}, err
	}
	answer, err := g.Commit(ctx, api.CommitRequest{Attested: attested})
	if err != nil {
		return api.CommitResponse{}, fmt.Errorf("committing: %w", err)
	}
	return answer, nil
}

// Stage announces the boots that can follow this one.
func (m *Machine) Stage(ctx context.Context, g Guest) (api.StageResponse, error) {
	challenge, err := g.StageChallenge(ctx)
	if err != nil {
		return api.StageResponse{}, fmt.Errorf("asking for a challenge: %w", err)
	}
	r, err := m.Prepare(exchange.PurposeStage, challenge)
	if err != nil {
		return api.StageResponse{}, err
	}
	attested, err := r.Attest()
	if err != nil {
		return api.StageResponse{}, err
	}
	answer, err := g.Stage(ctx, api.StageRequest{Attested: attested})
	if err != nil {
		return api.StageResponse{}, fmt.Errorf("staging: %w", err)
	}
	return answer, nil
}

// PrepareRelease asks for a challenge and makes an honest statement for it.
func (m *Machine) PrepareRelease(ctx context.Context, g Guest) (*Request, error) {
	challenge, err := g.Challenge(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for a challenge: %w", err)
	}
	return m.Prepare(exchange.PurposeBoot, challenge)
}

// Unlock asks for the keys of all volumes and closes the boot's exchange.
func (m *Machine) Unlock(ctx context.Context, g Guest) (*exchange.Release, error) {
	r, err := m.PrepareRelease(ctx, g)
	if err != nil {
		return nil, err
	}
	return r.Unlock(ctx, g)
}

// Unlock sends the request and does what a guest does with the answer.
func (r *Request) Unlock(ctx context.Context, g Guest) (*exchange.Release, error) {
	attested, err := r.Attest()
	if err != nil {
		return nil, err
	}
	answer, err := g.Release(ctx, api.ReleaseRequest{Attested: attested})
	if err != nil {
		return nil, fmt.Errorf("asking for a release: %w", err)
	}
	release, err := r.Open(attested.Statement, answer.Sealed)
	if err != nil {
		return nil, fmt.Errorf("opening a release: %w", err)
	}
	if err := r.machine.keep(release); err != nil {
		return nil, err
	}
	r.machine.TPM.Extend(15, exchange.ReleaseEvent(release.ID[:]))
	return release, nil
}
