"""XXH3-64 with seed 0, in plain Python: slow, and independent of the library that the tools use."""

M = (1 << 64) - 1
P32 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
       0x27D4EB2F165667C5)
MX1, MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")


def word(b, at, n=8):
    return int.from_bytes(b[at:at + n], "little")


def fold(a, b):
    p = a * b
    return (p & M) ^ (p >> 64)


def avalanche(h):
    h ^= h >> 37
    h = h * MX1 & M
    return h ^ h >> 32


def avalanche_64(h):
    h ^= h >> 33
    h = h * P64[1] & M
    h ^= h >> 29
    h = h * P64[2] & M
    return h ^ h >> 32


def rotate(h, n):
    return (h << n | h >> 64 - n) & M


def mix16(b, at, s):
    return fold(word(b, at) ^ word(SECRET, s), word(b, at + 8) ^ word(SECRET, s + 8))


def short(b, n):
    if n == 0:
        return avalanche_64(word(SECRET, 56) ^ word(SECRET, 64))
    if n <= 3:
        h = b[0] << 16 | b[n >> 1] << 24 | b[n - 1] | n << 8
        return avalanche_64(h ^ word(SECRET, 0, 4) ^ word(SECRET, 4, 4))
    if n <= 8:
        h = word(b, n - 4, 4) + (word(b, 0, 4) << 32) ^ word(SECRET, 8) ^ word(SECRET, 16)
        h ^= rotate(h, 49) ^ rotate(h, 24)
        h = h * MX2 & M
        h = (h ^ (h >> 35) + n) * MX2 & M
        return h ^ h >> 28
    low = word(b, 0) ^ word(SECRET, 24) ^ word(SECRET, 32)
    high = word(b, n - 8) ^ word(SECRET, 40) ^ word(SECRET, 48)
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    return avalanche(n + swapped + high + fold(low, high) & M)


def middle(b, n):
    h = n * P64[0]
    if n <= 128:
        for i in range((n - 1) // 32, -1, -1):
            h += mix16(b, 16 * i, 32 * i) + mix16(b, n - 16 * (i + 1), 32 * i + 16)
        return avalanche(h & M)
    h = avalanche(h + sum(mix16(b, 16 * i, 16 * i) for i in range(8)) & M)
    h += sum(mix16(b, 16 * i, 16 * (i - 8) + 3) for i in range(8, n // 16))
    return avalanche(h + mix16(b, n - 16, 136 - 17) & M)


def stripe(acc, b, at, s):
    for i in range(8):
        data = word(b, at + 8 * i)
        key = data ^ word(SECRET, s + 8 * i)
        acc[i ^ 1] = acc[i ^ 1] + data & M
        acc[i] = acc[i] + (key & 0xFFFFFFFF) * (key >> 32) & M


def long(b, n):
    acc = [P32[2], P64[0], P64[1], P64[2], P64[3], P32[1], P64[4], P32[0]]
    for i in range((n - 1) // 64):
        stripe(acc, b, 64 * i, i % 16 * 8)
        if i % 16 == 15 and i < (n - 1) // 1024 * 16:
            for k in range(8):
                acc[k] = (acc[k] ^ acc[k] >> 47 ^ word(SECRET, 128 + 8 * k)) * P32[0] & M
    stripe(acc, b, n - 64, 192 - 64 - 7)
    h = n * P64[0]
    for i in range(4):
        at = 11 + 16 * i
        h += fold(acc[2 * i] ^ word(SECRET, at), acc[2 * i + 1] ^ word(SECRET, at + 8))
    return avalanche(h & M)


def xxh3(b):
    """The hash of bytes, as 16 hexadecimal digits."""
    n = len(b)
    return f"{short(b, n) if n <= 16 else middle(b, n) if n <= 240 else long(b, n):016x}"
