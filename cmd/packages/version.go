package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// revision is that of the packaging; a version is packaged once.
const revision = "-1"

// described is what git describe tells of a commit, on or behind a tag.
var described = regexp.MustCompile(`^v(\d+\.\d+\.\d+)(?:-([a-z][0-9A-Za-z.]*))?(?:-(\d+)-g([0-9a-f]+))?$`)

// untagged is what it tells where there is no tag.
var untagged = regexp.MustCompile(`^([0-9a-f]{7,})$`)

// debianVersion turns what git describe tells into a version that dpkg sorts as it
// was meant: v1.2.0-rc.1 before v1.2.0 before what came after it before v1.2.1. A
// commit without a tag is older than every release and sorts by its time.
func debianVersion(text string, commit time.Time) (string, error) {
	clean, isDirty := strings.CutSuffix(text, "-dirty")
	end := revision
	if isDirty {
		end = "+dirty" + revision
	}
	if m := described.FindStringSubmatch(clean); m != nil {
		version := m[1]
		if m[2] != "" {
			version += "~" + m[2]
		}
		if m[3] != "" {
			version += "+" + m[3] + ".g" + m[4]
		}
		return version + end, nil
	}
	if untagged.MatchString(clean) {
		return "0.0.0~git" + commit.UTC().Format("20060102150405") + ".g" + clean + end, nil
	}
	return "", fmt.Errorf("the version %q is neither a tag such as v1.2.0 nor what git describe makes of one: build in a clone, or set VERSION", text)
}
