package shamir

// multiply multiplies in GF(2⁸), always in the same steps. Adding is xor.
func multiply(a, b byte) byte {
	var product byte
	for range 8 {
		product ^= -(b & 1) & a
		a = a<<1 ^ -(a>>7)&0x1b
		b >>= 1
	}
	return product
}

// invert returns the inverse, a²⁵⁴; of 0 it is 0.
func invert(a byte) byte {
	result := byte(1)
	for range 7 {
		a = multiply(a, a)
		result = multiply(result, a)
	}
	return result
}
