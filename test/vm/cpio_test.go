package vm

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestArchiveIsSortedAndWhole(t *testing.T) {
	var archive bytes.Buffer
	require.NoError(t, writeCPIO(&archive, []File{
		{Path: "/init", Mode: 0o755, Content: []byte("hello")},
		{Path: "/bin/sh", Mode: fs.ModeSymlink | 0o777, Content: []byte("busybox")},
	}))
	const zero = "00000000"
	header := func(inode, mode, size, name string) string {
		return "070701" + inode + mode + zero + zero + "00000001" + zero + size + strings.Repeat(zero, 4) + name + zero
	}
	assert.Equal(t, ""+
		header("00000001", "000041ED", zero, "00000004")+"bin\x00\x00\x00"+
		header("00000002", "0000A1FF", "00000007", "00000007")+"bin/sh\x00\x00\x00\x00"+"busybox\x00"+
		header("00000003", "000081ED", "00000005", "00000005")+"init\x00\x00"+"hello\x00\x00\x00"+
		header(zero, zero, zero, "0000000B")+"TRAILER!!!\x00\x00\x00\x00", archive.String())
	assert.Zero(t, archive.Len()%4)
}

func TestArchiveRefuses(t *testing.T) {
	for why, files := range map[string][]File{
		"there twice":      {{Path: "/a"}, {Path: "/x/../a"}},
		"must be absolute": {{Path: "a"}},
		"name a file":      {{Path: "/"}},
		"no directory":     {{Path: "/a"}, {Path: "/a/b"}},
	} {
		assert.ErrorContains(t, writeCPIO(&bytes.Buffer{}, files), why)
	}
}
