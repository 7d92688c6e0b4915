package api

import (
	"context"
	"net/url"
)

// Paths of recovery by custodians, on the operator listener.
const (
	PathCustody           = "/v1/roots/custody"
	PathCustodyChallenges = "/v1/roots/custody/challenges"
	PathCustodyDrills     = "/v1/roots/custody/drills"
)

// CustodyVersion is a keyring version as custodians hold it.
type CustodyVersion struct {
	Keyring string `json:"keyring"`
	Version uint32 `json:"version"`
	// Context is what the key is bound to.
	Context []byte `json:"context"`
	// Wrapped is the wrapper; docs/formats/quorum.md.
	Wrapped []byte `json:"wrapped"`
	// Check is the check value of the key in use.
	Check string `json:"check"`
}

// Custody is a page of what the custodians of a quorum hold.
type Custody struct {
	Root string `json:"root"`
	// Installation says whose keys they are.
	Installation string           `json:"installation"`
	Versions     []CustodyVersion `json:"versions"`
	// Next is the value of after for the next page; absent in the last.
	Next string `json:"next,omitempty"`
}

// CustodyChallenge asks a custodian for a sign that they have their identity.
type CustodyChallenge struct {
	Custodian string `json:"custodian"`
	// Age is an age file in armor.
	Age string `json:"age"`
	// Expect is the SHA-256 of the answer, in hex.
	Expect string `json:"expect"`
}

// CustodyChallenges are a challenge for each custodian.
type CustodyChallenges struct {
	Root       string             `json:"root"`
	Challenges []CustodyChallenge `json:"challenges"`
}

// ChooseRoot is the body that names a root.
type ChooseRoot struct {
	Root string `json:"root,omitempty" maxLength:"1024" doc:"The root as it is listed; without it the only one, or all, that the route is about."`
}

// Drill is the body that reports a drill.
type Drill struct {
	Root     string   `json:"root,omitempty" maxLength:"1024" doc:"The quorum; without it the only one."`
	By       []string `json:"by" maxItems:"16" doc:"Custodians who took part."`
	Missing  []string `json:"missing,omitempty" maxItems:"16" doc:"Custodians who were asked for a sign and gave none."`
	Proven   []string `json:"proven,omitempty" maxItems:"4096" doc:"Keyring versions whose keys were put together, and are those in use."`
	Unproven []string `json:"unproven,omitempty" maxItems:"4096" doc:"The other keyring versions."`
}

// Custody returns a page of what custodians hold; root and after may be empty.
func (o *OperatorClient) Custody(ctx context.Context, root, after string) (Custody, error) {
	query := url.Values{}
	for name, value := range map[string]string{"root": root, "after": after} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return get[Custody](ctx, o.c, PathCustody, query)
}

// CustodyChallenges makes a challenge for each custodian.
func (o *OperatorClient) CustodyChallenges(ctx context.Context, root string) (CustodyChallenges, error) {
	return post[CustodyChallenges](ctx, o.c, PathCustodyChallenges, ChooseRoot{root})
}

// RecordDrill enters a drill into the audit log.
func (o *OperatorClient) RecordDrill(ctx context.Context, d Drill) error {
	_, err := post[struct{}](ctx, o.c, PathCustodyDrills, d)
	return err
}
