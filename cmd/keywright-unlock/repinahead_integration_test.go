//go:build integration

package main

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock"
)

// remaking is a host whose initramfs is made ahead.
func (g *guest) remaking(out *bytes.Buffer, ahead map[string]string, made func()) host {
	h := g.hostOfTest(out, new(recorder))
	h.esp, h.ready = []string{g.path("esp")}, func() error { return nil }
	h.mapped = func() ([]unlock.Device, error) {
		return []unlock.Device{{Path: g.root, Name: filepath.Base(g.root), Root: true}}, nil
	}
	remake := func(context.Context) error { made(); return makeInitrd(g.initrd) }
	h.initramfs, h.asAhead = remake, remake
	h.ahead = func(context.Context, string) (map[string]string, error) { return ahead, nil }
	return h
}

// The boot with the initramfs to come is staged before that is in its place.
func TestRepinStagesBeforeItMakesTheInitramfs(t *testing.T) {
	s := startService(t)
	g := pinning(t, s)
	s.rotateIdentity(t)
	staged, machine := false, g.machine()
	var out bytes.Buffer
	h := g.remaking(&out, nil, func() {
		m, err := s.FindMachine(t.Context(), machine)
		require.NoError(t, err)
		staged = m.Announced.After(m.LastRelease)
	})
	require.Equal(t, unlock.ExitDone, g.runHere(h, g.repinArgs()...), out.String())
	assert.True(t, staged)
	g.restart()
	assert.Zero(t, s.identityCensus(t).Lacking)
}

// Where that cannot be, what boots stays as it is, and is made once it can be, or when
// a person says so.
func TestRepinKeepsTheInitramfsThatBoots(t *testing.T) {
	s := startService(t)
	g := pinning(t, s)
	former, _ := s.rotateIdentity(t)
	before := g.pinned(g.initrd)
	unknown := map[string]string{"/boot/initrd.img-1": "/var/tmp/initrd.img-1"}
	never := func() { t.Error("it was made") }
	var out bytes.Buffer
	require.Equal(t, unlock.ExitFailed, g.runHere(g.remaking(&out, unknown, never), g.repinArgs()...))
	assert.Contains(t, out.String(), "nothing tells what comes of another initramfs; it is made once this goes through, or with --unstaged")
	g.boot("ovmf-uki")
	assert.Equal(t, unlock.ExitDone, g.runHere(g.hostOfTest(new(bytes.Buffer), new(recorder)), "close", "--config", g.initrd))
	require.Equal(t, unlock.ExitRefused, g.runHere(g.remaking(&out, nil, never), g.repinArgs()...), "its boot had no keys")
	assert.Contains(t, out.String(), "KW-1217")
	assert.Equal(t, before, g.pinned(g.initrd))
	assert.FileExists(t, g.path("repinning"))
	g.restart()

	made := 0
	require.Equal(t, unlock.ExitDone, g.runHere(g.remaking(&out, unknown, func() { made++ }), append(g.repinArgs(), "--unstaged")...), out.String())
	assert.Equal(t, 1, made)
	assert.NoFileExists(t, g.path("repinning"))
	g.restart()
	s.retireIdentity(t, former)
}
