//go:build integration

package packages_test

import (
	"os"
	"regexp"
	"strings"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rotationPage has the units of a rotation by systemd.
const rotationPage = "../../docs/rotation.md"

var unitInPage = regexp.MustCompile("(?s)```ini\n# (/etc/systemd/system/[a-z.-]+)\n(.*?)```")

// verifyRotation holds the units that the page on rotation has against the service's
// package.
func (s *system) verifyRotation() {
	s.t.Helper()
	page, err := os.ReadFile(rotationPage)
	require.NoError(s.t, err)
	var paths []string
	for _, unit := range unitInPage.FindAllStringSubmatch(string(page), -1) {
		require.NoError(s.t, s.Write(unit[1], unit[2], 0o644))
		paths = append(paths, unit[1])
	}
	require.Len(s.t, paths, 3, "a timer, its service, and what tells of a failure")
	units := strings.Join(paths, " ")
	s.verify(units)
	s.run("rm " + units)
}

// verify has systemd find nothing to say of units.
func (s *system) verify(units string) {
	s.t.Helper()
	assert.Empty(s.t, s.run("systemd-analyze verify --man=no "+units))
}
