/* hash.c -- XXH3-64 for checksums of our own bytes, SHA-256 for naming other people's. */
#include "base.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

uint64_t hash_xxh3(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}

static void hex(char *out, const unsigned char *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[p[i] >> 4];
        *out++ = digits[p[i] & 15];
    }
    *out = 0;
}

void hash_hex(char out[17], uint64_t h)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(h >> (56 - 8 * i));
    hex(out, bytes, 8);
}

struct hash_stream *hash_stream_new(void)
{
    XXH3_state_t *s = XXH3_createState();
    if (!s)
        die("out of memory (a hash)");
    XXH3_64bits_reset(s);
    return (struct hash_stream *)s;
}

void hash_stream_add(struct hash_stream *h, const void *p, size_t n)
{
    if (n)
        XXH3_64bits_update((XXH3_state_t *)h, p, n);
}

uint64_t hash_stream_value(const struct hash_stream *h)
{
    return XXH3_64bits_digest((const XXH3_state_t *)h);
}

void hash_stream_free(struct hash_stream *h)
{
    XXH3_freeState((XXH3_state_t *)h);
}

void hash_sha256(char out[65], const void *p, size_t n)
{
    unsigned char digest[32];
    if (!EVP_Digest(p, n, digest, NULL, EVP_sha256(), NULL))
        die("libcrypto cannot compute SHA-256");
    hex(out, digest, 32);
}

int hash_sha256_file(char out[65], const char *path)
{
    static const size_t piece = 1 << 16;
    unsigned char digest[32];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (!c || !EVP_DigestInit_ex(c, EVP_sha256(), NULL))
        die("libcrypto cannot compute SHA-256");
    char *data = xmalloc(piece);
    ssize_t n;
    while ((n = read(fd, data, piece)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        EVP_DigestUpdate(c, data, (size_t)n);
    }
    int error = errno;
    EVP_DigestFinal_ex(c, digest, NULL);
    hex(out, digest, 32);
    EVP_MD_CTX_free(c);
    free(data);
    close(fd);
    errno = error;
    return n < 0 ? -1 : 0;
}
