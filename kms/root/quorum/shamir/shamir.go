// Package shamir is Shamir's secret sharing, byte by byte over GF(2⁸) with the
// polynomial of AES, x⁸ + x⁴ + x³ + x + 1: the secret is the value at 0, share
// number n the value at n. docs/formats/quorum.md says what is split.
//
// Invariants:
//   - Fewer shares than the threshold tell nothing of the secret: every
//     coefficient but the lowest is random, a zero in the highest included.
//   - Neither time nor memory access depends on secret bytes: the field has no
//     tables. Share numbers are not secret.
//
// It stands here since no library does this and is kept up under a permissive
// licence: what is in use either looks secrets up in tables or comes with a
// whole server, and a scheme over a group of prime order, such as circl's, takes
// scalars, computes on them with math/big, and commits to them in a way that a
// quantum computer undoes.
//
// It refuses to say whether shares belong together: wrong ones combine to
// something else. Package quorum sees to that before and after.
package shamir

import (
	"errors"
	"fmt"
	"io"

	"keywright.dev/kms/secret"
)

// MaxShares bounds the number of shares: the field has 255 points beside 0.
const MaxShares = 255

// Share is the value at one point.
type Share struct {
	Number byte // the point, not 0
	Value  secret.Bytes
}

// Split returns n shares, numbered from 1, of which any threshold give secret
// again. The threshold is 1 to n. Random gives the coefficients.
func Split(random io.Reader, shared secret.Bytes, threshold, n int) ([]Share, error) {
	if threshold < 1 || threshold > n || n > MaxShares {
		return nil, fmt.Errorf("splitting a secret: a threshold of %d of %d shares: want 1 ≤ threshold ≤ shares ≤ %d", threshold, n, MaxShares)
	}
	if shared.Len() == 0 {
		return nil, errors.New("splitting a secret: it is empty")
	}
	coefficients, err := secret.Random(random, (threshold-1)*shared.Len())
	if err != nil {
		return nil, fmt.Errorf("splitting a secret: %w", err)
	}
	defer coefficients.Wipe()
	shares := make([]Share, n)
	for i := range shares {
		number := byte(i + 1)
		shares[i] = Share{number, secret.New(evaluate(shared.Expose(), coefficients.Expose(), number))}
	}
	return shares, nil
}

// evaluate returns the value at x of the polynomials whose lowest coefficients
// are in lowest and whose others follow each other in higher, row by row.
func evaluate(lowest, higher []byte, x byte) []byte {
	value := make([]byte, len(lowest))
	for row := len(higher) / len(lowest); row > 0; row-- {
		for i, c := range higher[(row-1)*len(lowest) : row*len(lowest)] {
			value[i] = multiply(value[i]^c, x)
		}
	}
	for i, c := range lowest {
		value[i] ^= c
	}
	return value
}

// Combine returns what the shares are shares of, where there are enough of
// them, and else something else. It fails on shares that cannot be of one
// secret.
func Combine(shares []Share) (secret.Bytes, error) {
	if err := check(shares); err != nil {
		return secret.Bytes{}, fmt.Errorf("combining %d shares: %w", len(shares), err)
	}
	return interpolate(shares, 0), nil
}

func check(shares []Share) error {
	if len(shares) == 0 {
		return errors.New("want at least one")
	}
	var seen [256]bool
	for _, s := range shares {
		switch {
		case s.Number == 0:
			return errors.New("one has the number 0")
		case seen[s.Number]:
			return fmt.Errorf("two have the number %d", s.Number)
		case s.Value.Len() == 0 || s.Value.Len() != shares[0].Value.Len():
			return errors.New("their lengths differ, or are 0")
		}
		seen[s.Number] = true
	}
	return nil
}

// interpolate returns the value at x of the polynomials of lowest degree
// through the points (Lagrange).
func interpolate(points []Share, x byte) secret.Bytes {
	value := make([]byte, points[0].Value.Len())
	for i, p := range points {
		weight := byte(1)
		for j, other := range points {
			if j != i {
				weight = multiply(weight, multiply(x^other.Number, invert(p.Number^other.Number)))
			}
		}
		for k, b := range p.Value.Expose() {
			value[k] ^= multiply(weight, b)
		}
	}
	return secret.New(value)
}
