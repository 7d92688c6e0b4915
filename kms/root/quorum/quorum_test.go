package quorum_test

import (
	"fmt"
	"testing"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/quorum"
	"keywright.dev/kms/root/roottest"
	"keywright.dev/kms/secret"
)

func TestConformance(t *testing.T) {
	for name, c := range map[string]struct {
		threshold int
		people    func(testing.TB, ...string) []person
	}{
		"TwoOfThree":  {2, people},
		"ThreeOfFour": {3, quantumPeople},
	} {
		t.Run(name, func(t *testing.T) {
			roottest.RunOffline(t, func(t *testing.T) roottest.Offline {
				names := []string{"Alice", "Bob", "Carol", "Dave"}[:c.threshold+1]
				list := c.people(t, names...)
				r := opened(t, c.threshold, list)
				return roottest.Offline{
					Root:   r,
					Again:  func(t testing.TB) root.Root { return opened(t, c.threshold, list) },
					Other:  func(t testing.TB) root.Root { return opened(t, c.threshold, c.people(t, names...)) },
					People: func(ciphertext, context []byte) (secret.Bytes, error) { return together(r, list, ciphertext, context) },
				}
			})
		})
	}
}

// together does what people do with one wrapper, all of them.
func together(r *quorum.Root, list []person, wrapped, context []byte) (secret.Bytes, error) {
	row, err := quorum.ParseRow(wrapped)
	if err != nil {
		return secret.Bytes{}, err
	}
	texts, err := quorum.ShareFiles("here", made, []quorum.Entry{{Name: "it", Context: context, Wrapped: wrapped}})
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", root.ErrDoesNotOpen, err)
	}
	var given []quorum.Given
	for i, f := range texts {
		for _, p := range list {
			if p.name == f.Custodian {
				opened, _, err := quorum.OpenShares(f.Name, texts[i].Text, p)
				if err != nil {
					return secret.Bytes{}, err
				}
				given = append(given, opened...)
			}
		}
	}
	out := quorum.Combine([]quorum.Set{row.Set}, given)
	if len(out.Failed) > 0 {
		return secret.Bytes{}, fmt.Errorf("%w: %w", root.ErrDoesNotOpen, out.Failed[0])
	}
	if err := r.Verify(wrapped, out.Recovered[0].Key, context); err != nil {
		out.Wipe()
		return secret.Bytes{}, err
	}
	return out.Recovered[0].Key, nil
}
