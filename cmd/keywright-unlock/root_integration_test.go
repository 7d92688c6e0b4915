//go:build integration

package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// swap puts a volume with a passphrase of a thief's in the place of an enrolled
// one, with its UUID and our token.
func (g *guest) swap(volume, passphrase string) {
	g.t.Helper()
	v := header(g.t, volume)
	token, err := v.OwnTokens()[0].Encode()
	require.NoError(g.t, err)
	cryptsetup(g.t, passphrase, "luksFormat", "-q", "--type", "luks2", "--uuid", v.Header().UUID, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-slot", "1", "--key-file", "-", volume)
	cryptsetup(g.t, string(token), "token", "import", "--token-id", "0", "--json-file", "-", volume)
}

// TestAttack25ThiefsRootBesideTheData has a thief put a root of his own in the
// place of the enrolled one, and open it by passphrase while the machine goes on
// asking for the keys of root and data.
func TestAttack25ThiefsRootBesideTheData(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	g.swap(g.volumes[0], "known to the thief")
	path := g.bootConfig([]string{s.url}, s.pin())
	c, err := unlock.LoadConfig(path)
	require.NoError(t, err)
	soon := unlock.Duration(time.Millisecond)
	c.PromptAfter = &soon
	require.NoError(t, c.Write(path))
	askpass := g.path("askpass")
	// He knows no passphrase of the data.
	require.NoError(t, os.WriteFile(askpass, []byte("#!/bin/sh\ncase $1 in *volume0*) printf 'known to the thief' ;; *) exit 1 ;; esac\n"), 0o700))

	out, opener := new(bytes.Buffer), new(recorder)
	h := g.hostOfTest(out, opener)
	var lines strings.Builder
	refused := make(chan struct{})
	tell := sync.OnceFunc(func() { close(refused) })
	show := func(line string) {
		lines.WriteString(line + "\n")
		if strings.Contains(line, "KW-1211") {
			tell()
		}
	}
	h.announce, h.question = show, show // beside a prompt that is there already, or before it
	h.openByPassphrase = func(ctx context.Context, v unlock.Volume, passphrase secret.Bytes) error {
		<-refused // only then he types
		if err := (luks.Cryptsetup{}).TestKey(ctx, v.Device.Name(), 1, passphrase); err != nil {
			return err
		}
		opener.events = append(opener.events, "open "+v.Config.Name+" by passphrase")
		return nil
	}
	require.NotEqual(t, unlock.ExitDone, g.runHere(h, "boot", "--config", path, "--prompt", askpass))
	assert.Contains(t, lines.String(), "KW-1211")
	assert.Equal(t, []string{"open volume0 by passphrase"}, opener.events, "nothing is released for the data either")
	assert.Empty(t, opener.keys)
	_, events := g.closes(unlock.ExitDone, "--config", path, "--root", "/")
	assert.Empty(t, events)
	assert.Equal(t, notReleased(), g.pcr15())
}
