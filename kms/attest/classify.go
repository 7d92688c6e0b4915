package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"keywright.dev/kms/claims"
)

// named are the claims of a log, by the set they belong to.
type named struct {
	measurement, platform, state []claims.Claim
}

// classify names every event. The claims stand by PCR, then in the order of
// measuring; which of the lists an event lands in depends on its PCR: PCRs 1 and
// 5 describe one machine and run nothing. PCRs 8 and 9 are read as a whole.
func (l *eventLog) classify() named {
	var n named
	if l.locality != 0 {
		n.measurement = append(n.measurement, claims.Claim{Name: claims.FirmwareLocality, Value: strconv.Itoa(int(l.locality))})
	}
	for pcr, events := range l.events {
		switch {
		case pcr == 1, pcr == 5:
			n.platform = appendNamed(n.platform, events)
		case pcr == stubPCR:
			n.measurement = appendSections(n.measurement, events)
		case pcr == commandPCR && len(events) > 0:
			l.classifyLoader(&n)
		case pcr == filePCR && len(l.events[commandPCR]) > 0:
			// Named with the commands.
		default:
			n.measurement = appendNamed(n.measurement, events)
		}
	}
	return n
}

// classifyLoader names what GRUB measured by role, and keeps its commands in the
// state. Where roles cannot be told, all of it is part of the measurement, and
// the finding says why.
func (l *eventLog) classifyLoader(n *named) {
	commands := appendNamed(nil, l.events[commandPCR])
	boot, found := l.readGRUB(slices.Contains(n.measurement, claims.Claim{Name: claims.SecureBoot, Value: claims.Enabled}))
	if found == "" {
		var roles named
		if roles, found = boot.claim(); found == "" {
			n.measurement = append(n.measurement, roles.measurement...)
			n.platform = append(n.platform, roles.platform...)
			n.state = append(commands, roles.state...)
			return
		}
	}
	n.measurement = append(n.measurement, claims.Claim{Name: claims.LoaderFinding, Value: string(found)})
	n.measurement = append(append(n.measurement, commands...), appendNamed(nil, l.events[filePCR])...)
}

// appendNamed names the events of one PCR.
func appendNamed(list []claims.Claim, events []event) []claims.Claim {
	seen := make(seen)
	for i := range events {
		list = append(list, seen.name(&events[i]))
	}
	return list
}

// appendSections names what systemd-stub measured of a unified kernel image:
// for each section its name, which the digest covers, then its content.
func appendSections(list []claims.Claim, events []event) []claims.Claim {
	if len(events) == 0 {
		return list
	}
	sections := make(map[[digestSize]byte]string)
	for _, section := range claims.UKISections() {
		sections[sha256.Sum256([]byte("."+section+"\x00"))] = section
	}
	for i := 0; i < len(events); i++ {
		section, ok := sections[events[i].digest]
		if !ok || i+1 == len(events) {
			list = append(list, unexplained(&events[i]))
			continue
		}
		i++
		list = append(list, claims.Claim{Name: claims.UKIPrefix + section, Value: digestOf(&events[i])})
	}
	return list
}

// seen holds the names already given to events of the PCR at hand.
type seen map[string]bool

func (s seen) name(e *event) claims.Claim {
	name, value := s.explain(e)
	if name == "" || !claims.ValidValue(value) {
		return unexplained(e)
	}
	s[name] = true
	return claims.Claim{Name: name, Value: value}
}

func unexplained(e *event) claims.Claim {
	return claims.Claim{Name: claims.Unexplained, Value: inPCR(e, digestOf(e))}
}

func digestOf(e *event) string { return hex.EncodeToString(e.digest[:]) }

func inPCR(e *event, value string) string {
	return strconv.Itoa(int(e.pcr)) + " " + value
}

// explain returns the claim for an event, or no name. Whatever the claim, its
// value determines the digest; so a false type can make a claim's name wrong
// but not its measurement equal to that of another boot. The separator of the
// firmware's PCRs is known by its digest, as for checkSeparators: what stands
// before and behind it means different things.
func (s seen) explain(e *event) (name, value string) {
	if separator, ok := separatorOf(e); ok && (e.pcr <= 7 || e.kind == evSeparator) {
		return claims.Separator, inPCR(e, separator)
	}
	switch e.kind {
	case evAction, evEFIAction:
		if isAction(e.data) && e.covered() {
			return claims.Action, inPCR(e, string(e.data))
		}
	case evVariableConfig, evVariableAuthority, evVariableBoot, evVariableBoot2:
		return s.explainVariable(e)
	case evEventTag:
		return s.explainTag(e)
	case evGPT:
		if e.pcr == 5 && e.covered() {
			return claims.DiskLayout, digestOf(e)
		}
	case evIPL:
		return explainLoader(e)
	default:
		return explainFirmware(e), digestOf(e)
	}
	return "", ""
}

// isAction tells whether data is one of the texts that the profile defines for
// the course of a boot (section 10.4.4). Texts that tell of a setting, such as
// a debug mode, are not: they stay unexplained.
func isAction(data []byte) bool {
	return slices.Contains([]string{
		"Calling INT 19h",
		"Returned INT 19h",
		"Start Option ROM Scan",
		"Calling EFI Application from Boot Option",
		"Returning from EFI Application from Boot Option",
		"Exit Boot Services Invocation",
		"Exit Boot Services Returned with Success",
		"Exit Boot Services Returned with Failure",
	}, string(data))
}

// explainFirmware is for events whose digest is of something that the log does
// not hold.
func explainFirmware(e *event) string {
	switch {
	case e.pcr == 0 && e.kind == evCRTMVersion:
		return claims.FirmwareCRTM
	case e.pcr == 0 && (e.kind == evFirmwareBlob || e.kind == evFirmwareBlob2):
		return claims.FirmwareBlob
	case e.pcr == 1 && (e.kind == evHandoffTables || e.kind == evHandoffTables2):
		return claims.PlatformTable
	case e.pcr == 4 && e.kind == evBootApplication:
		return claims.BootApplication
	default:
		return ""
	}
}

// explainLoader is for what boot loaders and systemd-stub measure. No digest
// of theirs covers the label that stands beside it in the log.
func explainLoader(e *event) (name, value string) {
	switch e.pcr {
	case 8:
		name = claims.LoaderCommand
	case 9:
		name = claims.LoaderFile
	case 12:
		if text, ok := commandLineOf(e); ok {
			return claims.StubCommandLine, text
		}
		name = claims.StubParameter
	case 13:
		name = claims.StubExtension
	case 14:
		name = claims.ShimMOK
	}
	return name, digestOf(e)
}

// commandLineOf returns the command line that systemd-stub was given from
// outside: UTF-16 with a NUL at its end, the digest covering both.
func commandLineOf(e *event) (string, bool) {
	text, ok := textOf(e.data)
	line, ended := strings.CutSuffix(text, "\x00")
	return line, ok && ended && claims.ValidValue(line) && e.covered()
}

// Tags of the Linux EFI stub (linux/drivers/firmware/efi/libstub).
const (
	tagLoadOptions = 0x8f3b22ed
	tagInitrd      = 0x8f3b22ec
)

// explainTag is for what the kernel's EFI stub measures: its command line,
// then its initrd, each once. The tag is not covered, the order is.
func (s seen) explainTag(e *event) (name, value string) {
	if e.pcr != 9 || s[claims.KernelInitrd] || len(e.data) < 4 {
		return "", ""
	}
	tag := binary.LittleEndian.Uint32(e.data)
	switch {
	case tag == tagLoadOptions && !s[claims.KernelCommandLine]:
		return claims.KernelCommandLine, digestOf(e)
	case tag == tagInitrd:
		return claims.KernelInitrd, digestOf(e)
	default:
		return "", ""
	}
}

// explainVariable is for UEFI variables. What stands before the separator in
// PCR 7 is configuration, what stands behind it allowed a program to run.
func (s seen) explainVariable(e *event) (name, value string) {
	v, ok := parseVariable(e.data)
	if !ok {
		return "", ""
	}
	switch {
	case e.pcr == 7 && !s[claims.Separator] && e.kind == evVariableConfig && e.covered():
		return s.explainSecureBoot(e, v)
	case e.pcr == 7 && s[claims.Separator] && e.kind == evVariableAuthority && e.covered():
		return claims.SecureBootAuthority, v.name + " " + digestOf(e)
	case e.pcr == 1 && (e.kind == evVariableBoot || e.kind == evVariableBoot2):
		return explainBootVariable(e, v)
	default:
		return "", ""
	}
}

func (s seen) explainSecureBoot(e *event, v variable) (name, value string) {
	value = digestOf(e)
	switch {
	case v.vendor == guidGlobal && v.name == "SecureBoot":
		name, value = claims.SecureBoot, secureBootState(v.data)
	case v.vendor == guidGlobal && v.name == "PK":
		name = claims.SecureBootPK
	case v.vendor == guidGlobal && v.name == "KEK":
		name = claims.SecureBootKEK
	case v.vendor == guidImageSecurity && v.name == "db":
		name = claims.SecureBootDB
	case v.vendor == guidImageSecurity && v.name == "dbx":
		name = claims.SecureBootDBX
	}
	if s[name] {
		return "", ""
	}
	return name, value
}

// secureBootState returns "" for a value that UEFI does not define.
func secureBootState(data []byte) string {
	switch {
	case bytes.Equal(data, []byte{1}):
		return claims.Enabled
	case bytes.Equal(data, []byte{0}):
		return claims.Disabled
	default:
		return ""
	}
}

// explainBootVariable is for BootOrder and Boot####. Firmware of one age
// measures the variable with its name, of another its content alone.
func explainBootVariable(e *event, v variable) (name, value string) {
	switch {
	case v.vendor == guidGlobal && e.covered():
		return claims.BootEntry, v.name + " " + digestOf(e)
	case sha256.Sum256(v.data) == e.digest:
		return claims.BootVariable, digestOf(e)
	default:
		return "", ""
	}
}
