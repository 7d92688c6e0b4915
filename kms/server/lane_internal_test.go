package server

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOtherWorkYieldsToBoots(t *testing.T) {
	g := &guests{releases: newLane("release", 2)}
	require.NoError(t, g.yieldToBoots(t.Context()), "nobody boots")
	leave, err := g.releases.enter(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, g.yieldToBoots(ctx), context.Canceled, "it waits")
	require.NoError(t, g.yieldToBoots(t.Context()), "not for ever")
	leave()
	assert.NoError(t, g.yieldToBoots(ctx))
}
