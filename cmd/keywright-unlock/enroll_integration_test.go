//go:build integration

package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEnrollApproveBoot(t *testing.T) {
	s, g := startService(t), newGuest(t, 2)
	out := g.enroll(s)
	t.Log(out)
	s.approve(t, g.machine())
	g.boot("ovmf-uki")
	cmd := g.child("boot", "--config", g.bootConfig([]string{s.url}, s.pin()))
	text, err := cmd.CombinedOutput()
	t.Log(string(text))
	require.NoError(t, err)
}
