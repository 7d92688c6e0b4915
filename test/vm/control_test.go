package vm

import (
	"bufio"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// converse opens a control channel whose other end answers the commands after
// the first with these lines, and returns what it was sent.
func converse(t *testing.T, answers ...string) (*control, <-chan string) {
	t.Helper()
	ours, theirs, err := socketPair()
	require.NoError(t, err)
	c, err := openControl(ours, 10*time.Second)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	commands := make(chan string, len(answers)+1)
	go func(peer *os.File) {
		defer peer.Close()
		lines := bufio.NewScanner(peer)
		fmt.Fprintln(peer, `{"QMP": {"version": {}, "capabilities": []}}`)
		for _, answer := range append([]string{`{"return": {}, "id": 1}`}, answers...) {
			if !lines.Scan() {
				return
			}
			commands <- lines.Text()
			fmt.Fprintln(peer, answer)
		}
	}(theirs)
	return c, commands
}

func TestControlKeepsEventsForWhomAwaitsThem(t *testing.T) {
	c, commands := converse(t, `{"event": "STOP"} {"event": "MIGRATION", "data": {"status": "active"}} {"return": {}, "id": 2}`+
		`{"event": "MIGRATION", "data": {"status": "completed"}}`)
	require.NoError(t, c.execute(t.Context(), "migrate", map[string]string{"uri": "x"}))
	event, err := c.await(t.Context(), "MIGRATION", "completed", "failed")
	require.NoError(t, err)
	assert.Equal(t, "completed", event.Data.Status)
	assert.JSONEq(t, `{"id": 1, "execute": "qmp_capabilities"}`, <-commands)
	assert.JSONEq(t, `{"id": 2, "execute": "migrate", "arguments": {"uri": "x"}}`, <-commands)
}

func TestControlTellsWhyNot(t *testing.T) {
	c, _ := converse(t, `{"error": {"class": "GenericError", "desc": "not suspended"}, "id": 2}`)
	require.ErrorContains(t, c.execute(t.Context(), "system_wakeup", nil), "having QEMU system_wakeup: not suspended")
	_, err := c.await(t.Context(), "RESUME")
	require.ErrorContains(t, err, "awaiting QEMU's event RESUME")
}

func TestControlLosesItsPatience(t *testing.T) {
	ours, theirs, err := socketPair()
	require.NoError(t, err)
	defer theirs.Close()
	c, err := openControl(ours, time.Millisecond)
	require.NoError(t, err)
	defer c.Close()
	require.ErrorIs(t, c.execute(t.Context(), "quit", nil), os.ErrDeadlineExceeded)
}
