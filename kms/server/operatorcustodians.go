package server

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// Challenge asks a custodian for a sign that they have their identity.
type Challenge struct {
	Custodian string
	Text      string   // an age file in armor
	Expect    [32]byte // SHA-256 of the answer
}

type (
	custodyInput struct {
		PageInput
		Root string `query:"root" maxLength:"1024" doc:"The quorum as it is listed; without it the only one."`
	}
	chooseRootInput struct {
		Body api.ChooseRoot
	}
	drillInput struct {
		Body api.Drill
	}
)

func (o *operators) addCustodians() {
	register(o, operation[custodyInput, struct{}, api.Custody]{
		Route: Route{
			Method: http.MethodGet, Path: api.PathCustody, Action: kms.ActionExportShares,
			Summary: "Export the shares of custodians, each encrypted to its custodian. A page may hold fewer keyring versions than it was asked for.",
		},
		find: nothing[custodyInput], act: o.custody,
	})
	register(o, operation[chooseRootInput, struct{}, api.CustodyChallenges]{
		Route: Route{Method: http.MethodPost, Path: api.PathCustodyChallenges, Action: kms.ActionDrill, Summary: "Make a challenge for each custodian, who shows by the answer that they have their identity."},
		find:  nothing[chooseRootInput], act: o.custodyChallenges,
	})
	register(o, operation[drillInput, struct{}, struct{}]{
		Route: Route{Method: http.MethodPost, Path: api.PathCustodyDrills, Action: kms.ActionDrill, Summary: "Record a drill of custodians."},
		find:  nothing[drillInput], act: o.recordDrill,
	})
}

func (o *operators) custody(ctx context.Context, _ struct{}, in *custodyInput) (api.Custody, error) {
	q, err := o.server.Service.Quorum(in.Root)
	if err != nil {
		return api.Custody{}, err
	}
	page, next, err := o.server.Service.ExportShares(ctx, stateOf(ctx).operator(), q, in.After, in.Limit)
	if err != nil {
		return api.Custody{}, err
	}
	answer := api.Custody{
		Root: q.URI(), Installation: fmt.Sprintf("%s, service key %s", o.server.GuestURL, exchange.FormatFingerprint(o.server.Service.ServiceKey())),
		Versions: []api.CustodyVersion{}, Next: next,
	}
	for _, w := range page {
		answer.Versions = append(answer.Versions, api.CustodyVersion{Keyring: w.Keyring, Version: w.Version, Context: w.Context, Wrapped: w.Wrapped, Check: w.Check})
	}
	return answer, nil
}

func (o *operators) custodyChallenges(ctx context.Context, _ struct{}, in *chooseRootInput) (api.CustodyChallenges, error) {
	q, err := o.server.Service.Quorum(in.Body.Root)
	if err != nil {
		return api.CustodyChallenges{}, err
	}
	if err := o.server.Service.CheckCustody(ctx, q); err != nil {
		return api.CustodyChallenges{}, err
	}
	list, err := o.server.Challenges(q)
	if err != nil {
		return api.CustodyChallenges{}, err
	}
	answer := api.CustodyChallenges{Root: q.URI(), Challenges: []api.CustodyChallenge{}}
	for _, c := range list {
		answer.Challenges = append(answer.Challenges, api.CustodyChallenge{Custodian: c.Custodian, Age: c.Text, Expect: hex.EncodeToString(c.Expect[:])})
	}
	return answer, nil
}

func (o *operators) recordDrill(ctx context.Context, _ struct{}, in *drillInput) (struct{}, error) {
	q, err := o.server.Service.Quorum(in.Body.Root)
	if err != nil {
		return struct{}{}, err
	}
	d := kms.Drill{By: in.Body.By, Proven: in.Body.Proven, Unproven: in.Body.Unproven, Missing: in.Body.Missing}
	return struct{}{}, o.server.Service.RecordDrill(ctx, stateOf(ctx).operator(), q, d)
}
