package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/rogpeppe/go-internal/testscript"
)

// identity makes a custodian's identity, D/NAME.id, and puts its recipient into
// D/custodians: identity NAME.
func identity(ts *testscript.TestScript, _ bool, args []string) {
	made, err := age.GenerateHybridIdentity()
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(ts.Getenv("D"), args[0]+".id"), []byte(made.String()+"\n"), 0o600))
	f, err := os.OpenFile(filepath.Join(ts.Getenv("D"), "custodians"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = fmt.Fprintf(f, "%s # %s\n", made.Recipient(), args[0])
	ts.Check(err)
	ts.Check(f.Close())
}

// answer decrypts whichever challenge in a folder is for an identity, as age
// does, and appends the text to a file: answer IDENTITY FOLDER FILE.
func answer(ts *testscript.TestScript, _ bool, args []string) {
	text, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	identities, err := age.ParseIdentities(bytes.NewReader(text))
	ts.Check(err)
	challenges, err := filepath.Glob(filepath.Join(ts.MkAbs(args[1]), "*.age"))
	ts.Check(err)
	for _, path := range challenges {
		sealed, err := os.ReadFile(path)
		ts.Check(err)
		plain, err := age.Decrypt(armor.NewReader(bytes.NewReader(sealed)), identities...)
		if err != nil {
			continue // another custodian's
		}
		said, err := io.ReadAll(plain)
		ts.Check(err)
		f, err := os.OpenFile(ts.MkAbs(args[2]), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		ts.Check(err)
		_, err = fmt.Fprintf(f, "%s\n", said)
		ts.Check(err)
		ts.Check(f.Close())
		return
	}
	ts.Fatalf("none of %v is for %s", challenges, args[0])
}
