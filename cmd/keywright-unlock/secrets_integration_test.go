//go:build integration

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSecretsStandInNoArgumentAndNoEnvironment of the program or of any that it
// runs, nor in what it prints and writes.
func TestSecretsStandInNoArgumentAndNoEnvironment(t *testing.T) {
	s, g := startService(t), newGuest(t, 2)
	cmd := g.child(g.enrollArgs(s)...)
	give(t, cmd, passphrase)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	stop, seen := make(chan struct{}), make(chan []byte)
	go watchGroup(cmd.Process.Pid, stop, seen)
	require.NoError(t, cmd.Wait(), out.String())
	close(stop)
	visible := <-seen
	require.Contains(t, string(visible), "luksAddKey", "the watch saw what it should")

	s.approve(t, g.machine())
	g.boot("ovmf-uki")
	r := g.bootHere(s)
	require.NoError(t, r.err)
	require.Len(t, r.keys, 4, "of each volume the released key and its own")
	for _, path := range g.volumes {
		r.keys = append(r.keys, []byte(g.recoveryKey(s, path)))
	}
	for name, text := range map[string][]byte{
		"processes": visible, "enrolment": out.Bytes(), "boot": []byte(r.lines), "files": g.files(t),
	} {
		assert.NotContains(t, string(text), passphrase, name)
		for _, key := range r.keys {
			for _, form := range []string{string(key), hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key), base64.RawURLEncoding.EncodeToString(key)} {
				assert.NotContains(t, string(text), form, name)
			}
		}
	}
}

// watchGroup collects arguments and environments of a process group until stop.
func watchGroup(group int, stop <-chan struct{}, seen chan<- []byte) {
	var all bytes.Buffer
	known := make(map[string]bool)
	for {
		select {
		case <-stop:
			seen <- all.Bytes()
			return
		case <-time.After(time.Millisecond):
		}
		stats, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, stat := range stats {
			if groupOf(stat) != group {
				continue
			}
			for _, name := range []string{"cmdline", "environ"} {
				text, _ := os.ReadFile(filepath.Join(filepath.Dir(stat), name))
				if !known[string(text)] {
					known[string(text)] = true
					all.Write(text)
				}
			}
		}
	}
}

// groupOf reads the process group (proc(5), field 5).
func groupOf(stat string) int {
	text, err := os.ReadFile(stat)
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(text, []byte(") "))
	var state string
	var parent, group int
	_, _ = fmt.Sscan(string(rest), &state, &parent, &group)
	return group
}

// files returns all that the program wrote beside the volumes.
func (g *guest) files(t *testing.T) []byte {
	t.Helper()
	var all []byte
	for _, path := range []string{g.path("unlock.toml"), g.path("boot.toml"), g.path("run/receipt"), g.path("run/opened.json")} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		all = append(all, text...)
	}
	return all
}
