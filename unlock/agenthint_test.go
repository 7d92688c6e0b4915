package unlock_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"

	"keywright.dev/kms/api"
)

func hinted(again int, keys ...byte) func() (api.OrdersResponse, error) {
	return func() (api.OrdersResponse, error) {
		answer := api.OrdersResponse{Again: again}
		for _, k := range keys {
			answer.ServiceKeys = append(answer.ServiceKeys, bytes.Repeat([]byte{k}, 32))
		}
		return answer, nil
	}
}

// A hint of other service keys is passed on once, and another one not before ten
// minutes have passed: whoever stands in between must not keep the machine busy.
func TestAgentPassesOnThatThereAreOtherServiceKeys(t *testing.T) {
	r := newAgentRig(t, 9, answers{
		hinted(0, 1), hinted(0), hinted(0, 1, 1, 1, 1, 1), // the same, none, too many
		hinted(0, 2, 1), hinted(0, 2, 1), hinted(0, 3, 1), hinted(700, 2, 1),
		hinted(0, 3, 1), hinted(0, 2, 1),
	})
	r.known.Pins = [][32]byte{[32]byte(bytes.Repeat([]byte{1}, 32))}
	passed := 0
	r.known.Repin = func() error {
		passed++
		return errors.New("read-only file system")
	}
	r.run(t)
	assert.Equal(t, 2, passed)
	assert.Contains(t, r.lines, "having them taken over: read-only file system")
}
