package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestServiceManagerIsTold plays systemd's part of sd_notify(3).
func TestServiceManagerIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { manager.Close() })
	s := startServer(t, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=300000")
	hear := func() string {
		require.NoError(t, manager.SetReadDeadline(time.Now().Add(5*time.Second)))
		buf := make([]byte, 1024)
		n, err := manager.Read(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
	ready := hear()
	assert.True(t, strings.HasPrefix(ready, "READY=1\nSTATUS=guests connect to https://127.0.0.1:"), ready)
	assert.Equal(t, "WATCHDOG=1", hear())
	s.stop()
	for said := hear(); said != "STOPPING=1"; said = hear() {
		assert.Equal(t, "WATCHDOG=1", said)
	}
}
