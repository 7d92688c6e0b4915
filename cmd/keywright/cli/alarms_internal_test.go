package cli

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"keywright.dev/kms/api"
)

// An alarm stays open where the other machine is forgotten: it is shown all the
// same, with how to end it.
func TestCopiedDiskIsShownWithoutTheOther(t *testing.T) {
	var out strings.Builder
	writeVolumeAlarms(&out, api.Volume{ID: "93ab5c0d", Alarms: []string{alarmCopied}})
	assert.Contains(t, out.String(), "ALARM: volume/93ab5c0d")
	assert.Contains(t, out.String(), "keywright volume accept 93ab5c0d --copied")
}
