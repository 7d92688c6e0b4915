package server

import (
	"context"
	"encoding/hex"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// table returns the routes of the guest listener.
func (g *guests) table() []guestRoute {
	return []guestRoute{
		guestCall(Route{
			Path: api.PathBootChallenge, Action: kms.ActionRelease, Summary: "Ask for the challenge of a boot.",
		}, api.MaxRequest, g.challenges, g.challenge(exchange.PurposeBoot)),
		guestCall(Route{
			Path: api.PathBootRelease, Action: kms.ActionRelease, Summary: "Prove a boot and receive the keys of the machine's volumes.",
		}, api.MaxEvidenceRequest, g.releases, g.release),
		guestCall(Route{
			Path: api.PathEnrollBegin, Action: kms.ActionEnroll, Summary: "Begin an enrolment with the TPM's keys.",
		}, api.MaxRequest, g.enrolments, g.begin),
		guestCall(Route{
			Path: api.PathEnrollComplete, Action: kms.ActionEnroll, Summary: "Prove the TPM and receive a new key for each volume.",
		}, api.MaxEvidenceRequest, g.enrolments, g.complete),
		guestCall(Route{
			Path: api.PathCommitChallenge, Action: kms.ActionCommit, Summary: "Ask for the challenge of a commit.",
		}, api.MaxRequest, g.challenges, g.challenge(exchange.PurposeCommit)),
		guestCall(Route{
			Path: api.PathEnrollCommit, Action: kms.ActionCommit, Summary: "End an enrolment: the keyslots are in place.",
		}, api.MaxEvidenceRequest, g.enrolments, g.commit),
		guestCall(Route{
			Path: api.PathStageChallenge, Action: kms.ActionStage, Summary: "Ask for the challenge of an announcement.",
		}, api.MaxRequest, g.challenges, g.challenge(exchange.PurposeStage)),
		guestCall(Route{
			Path: api.PathStage, Action: kms.ActionStage, Summary: "Announce, from a running system, the boots that can follow.",
		}, api.MaxEvidenceRequest, g.enrolments, g.stage),
		guestCall(Route{
			Path: api.PathGuestOrders, Action: kms.ActionDeliverRekey, Summary: "Wait, in a running system, until the service wants something of the machine.",
		}, api.MaxRequest, nil, g.orders),
		guestCall(Route{
			Path: api.PathRekeyChallenge, Action: kms.ActionDeliverRekey, Summary: "Ask for the challenge of a rekey.",
		}, api.MaxRequest, g.challenges, g.challenge(exchange.PurposeRekey)),
		guestCall(Route{
			Path: api.PathRekey, Action: kms.ActionDeliverRekey, Summary: "Receive, in a running system, the secrets of a volume whose rekey is ordered.",
		}, api.MaxEvidenceRequest, g.enrolments, g.rekey),
		guestCall(Route{
			Path: api.PathRekeyHeader, Action: kms.ActionKeepHeader, Summary: "Keep the copy of a header from before a rekey, sealed with the key that its secrets came with.",
		}, api.MaxHeaderCopyRequest, g.enrolments, g.keepHeader),
		guestCall(Route{
			Path: api.PathRekeyedChallenge, Action: kms.ActionReportRekey, Summary: "Ask for the challenge of a report about a rekey.",
		}, api.MaxRequest, g.challenges, g.challenge(exchange.PurposeRekeyed)),
		guestCall(Route{
			Path: api.PathRekeyed, Action: kms.ActionReportRekey, Summary: "Report, from a running system, what became of a rekey.",
		}, api.MaxEvidenceRequest, g.enrolments, g.rekeyed),
		guestCall(Route{
			Path: api.PathServiceKeys, Action: "service.keys", Summary: "Ask which service identity keys to pin.",
		}, api.MaxRequest, g.challenges, g.serviceKeys),
		guestCall(Route{
			Path: api.PathGuestKeyChallenge, Action: kms.ActionKeyUse, Summary: "Ask for the challenge of a call on keys.",
		}, api.MaxRequest, g.keys, g.keyChallenge),
		guestCall(Route{
			Path: api.PathGuestKeys, Action: kms.ActionKeyUse, Summary: "Wrap, unwrap, rewrap or make keys for the applications of a running machine.",
		}, api.MaxKeyRequest, g.keys, g.useKeys),
	}
}

func (g *guests) challenge(purpose exchange.Purpose) func(context.Context, call, *api.ChallengeRequest) (api.Challenge, error) {
	return func(context.Context, call, *api.ChallengeRequest) (api.Challenge, error) {
		issued, err := g.server.Service.IssueChallenge(purpose)
		return challengeOf(issued), err
	}
}

func (g *guests) release(ctx context.Context, c call, r *api.ReleaseRequest) (api.ReleaseResponse, error) {
	sealed, err := g.server.Service.Release(ctx, attestedOf(r.Attested, c))
	return api.ReleaseResponse{Sealed: api.Sealed(sealed)}, err
}

func (g *guests) begin(ctx context.Context, _ call, r *api.BeginRequest) (api.BeginResponse, error) {
	begun, err := g.server.Service.BeginEnrollment(ctx, kms.TPMKeys(r.Keys))
	return api.BeginResponse{
		Challenge: challengeOf(begun.Challenge), Credential: begun.Credential, EncryptedSecret: begun.EncryptedSecret,
	}, err
}

func (g *guests) complete(ctx context.Context, c call, r *api.CompleteRequest) (api.CompleteResponse, error) {
	sealed, err := g.server.Service.CompleteEnrollment(ctx, attestedOf(r.Attested, c), kms.TPMKeys(r.Keys), r.Proof)
	return api.CompleteResponse{Sealed: api.Sealed(sealed)}, err
}

func (g *guests) commit(ctx context.Context, c call, r *api.CommitRequest) (api.CommitResponse, error) {
	committed, err := g.server.Service.CommitEnrollment(ctx, attestedOf(r.Attested, c))
	return api.CommitResponse{
		Status:      string(committed.Status),
		Measurement: hex.EncodeToString(committed.Measurement[:]),
		Platform:    hex.EncodeToString(committed.Platform[:]),
	}, err
}

func (g *guests) stage(ctx context.Context, c call, r *api.StageRequest) (api.StageResponse, error) {
	staged, err := g.server.Service.Stage(ctx, attestedOf(r.Attested, c))
	answer := api.StageResponse{Until: stamp(staged.Until), Boots: make([]api.StagedBoot, 0, len(staged.Boots))}
	for _, b := range staged.Boots {
		boot := api.StagedBoot{Measurement: hexOf(b.Measurement), Platform: hexOf(b.Platform)}
		if b.Refusal != nil {
			boot.Code, boot.Detail = api.Code(b.Refusal.Reason), b.Refusal.Detail
		}
		answer.Boots = append(answer.Boots, boot)
	}
	return answer, err
}

func (g *guests) rekey(ctx context.Context, c call, r *api.RekeyRequest) (api.RekeyResponse, error) {
	sealed, err := g.server.Service.DeliverRekey(ctx, attestedOf(r.Attested, c))
	return api.RekeyResponse{Sealed: api.Sealed(sealed)}, err
}

func (g *guests) keepHeader(ctx context.Context, c call, r *api.HeaderCopyRequest) (api.HeaderCopyResponse, error) {
	return api.HeaderCopyResponse{}, g.server.Service.KeepHeader(ctx, kms.HeaderUpload{
		Machine: r.Machine, Volume: r.Volume, Version: r.Version, Sealed: r.Copy, Source: c.source, Request: c.id,
	})
}

func (g *guests) rekeyed(ctx context.Context, c call, r *api.RekeyedRequest) (api.RekeyedResponse, error) {
	signed, err := g.server.Service.ReportRekey(ctx, attestedOf(r.Attested, c))
	return api.RekeyedResponse{Signed: api.Sealed(signed)}, err
}

func challengeOf(c kms.Challenge) api.Challenge {
	selection := exchange.SelectionBitmap()
	return api.Challenge{Challenge: c.Nonce[:], Token: c.Token, Expires: c.Expires, Selection: selection[:]}
}

func attestedOf(a api.Attested, c call) kms.Attested {
	return kms.Attested{
		Machine: a.Machine, Challenge: a.Challenge, Token: a.Token, Statement: a.Statement,
		Evidence: kms.Evidence(a.Evidence), Source: c.source, Request: c.id,
	}
}
