package serve

import (
	"fmt"

	"keywright.dev/kms"
	"keywright.dev/kms/root/quorum"
	"keywright.dev/kms/server"
)

// challenges has a quorum make a challenge for each custodian.
func challenges(q kms.Quorum) ([]server.Challenge, error) {
	r, ok := q.(*quorum.Root)
	if !ok {
		return nil, fmt.Errorf("making challenges: %s has no custodians", q.URI())
	}
	made, err := r.Challenges()
	if err != nil {
		return nil, err
	}
	var list []server.Challenge
	for _, c := range made {
		list = append(list, server.Challenge{Custodian: c.Custodian, Text: c.Text, Expect: c.Expect})
	}
	return list, nil
}
