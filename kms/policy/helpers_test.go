package policy_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms/claims"
	"keywright.dev/kms/policy"
)

// engine loads the shipped policies and the given text.
func engine(tb testing.TB, text ...string) *policy.Engine {
	tb.Helper()
	documents, err := policy.Shipped()
	require.NoError(tb, err)
	for _, t := range text {
		documents = append(documents, policy.Document{Name: "site.cedar", Text: []byte(t)})
	}
	e, err := policy.New(documents...)
	require.NoError(tb, err)
	return e
}

// only loads the given text alone.
func only(tb testing.TB, text string) *policy.Engine {
	tb.Helper()
	e, err := policy.New(policy.Document{Name: "site.cedar", Text: []byte(text)})
	require.NoError(tb, err)
	return e
}

func set(tb testing.TB, kind claims.Kind, lines ...string) claims.Set {
	tb.Helper()
	var list []claims.Claim
	for _, line := range lines {
		name, value, _ := strings.Cut(line, " ")
		list = append(list, claims.Claim{Name: name, Value: value})
	}
	s, err := claims.New(kind, list)
	require.NoError(tb, err)
	return s
}

var (
	web17 = policy.Machine{ID: "7f3a", Name: "web-17", Group: "web", Status: "active"}
	db1   = policy.Machine{ID: "0c5e", Name: "db-1", Group: "db", Status: "active"}
	root  = policy.Volume{ID: "v1", Machine: web17}
)

// goodBoot is a boot of tier exact whose measurement and platform are approved.
func goodBoot(tb testing.TB) policy.Boot {
	tb.Helper()
	return policy.Boot{
		Measurement: set(tb, claims.Measurement,
			"secureboot.state enabled", "secureboot.authority db 11", "secureboot.authority db 22",
			"boot.application aa", "uki.linux bb", "uki.cmdline cc", "uki.initrd dd"),
		Approved: true, Matched: "m-1",
		Platform: set(tb, claims.Platform, "disk.gpt ee"), PlatformApproved: true,
		State:  set(tb, claims.State, "tpm.reset-count 17", "boot.phase enter-initrd"),
		Source: netip.MustParseAddr("192.0.2.7"),
		Time:   time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC),
	}
}
