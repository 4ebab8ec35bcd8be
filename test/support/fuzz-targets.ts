/** Every parser of bytes from outside, and the file that feeds it with any. test/docs.test.ts holds the list complete. */
export const FUZZ_TARGETS: readonly { readonly file: string; readonly what: string }[] = [
  { file: 'test/unpack/tar-reader.fuzz.test.ts', what: 'tar, PAX and GNU headers' },
  { file: 'test/unpack/decoders.test.ts', what: 'gzip, zstd, bzip2, xz' },
  {
    file: 'test/unpack/erofs-agreement.test.ts',
    what: 'EROFS writer: kernel and fsck agree with plain files',
  },
  { file: 'test/unpack/erofs-limits.test.ts', what: 'EROFS writer: any entries in any order' },
  { file: 'test/unpack/aci-rewrite.test.ts', what: 'ACIs' },
  { file: 'test/image/oci-validate.test.ts', what: 'OCI indexes, manifests, configs' },
  { file: 'test/image/appc-manifest.test.ts', what: 'ImageManifests, appc names' },
  { file: 'test/image/reference.test.ts', what: 'references' },
  { file: 'test/fetch/docker-archive.test.ts', what: 'manifest.json of docker-archives' },
  { file: 'test/fetch/challenge.test.ts', what: 'Www-Authenticate' },
  { file: 'test/fetch/aci-discovery.test.ts', what: 'meta elements of pages' },
  { file: 'test/verify/openpgp-fuzz.test.ts', what: 'OpenPGP signatures and keys' },
  { file: 'test/verify/openpgp-keystore.test.ts', what: 'armor, packets, names in key stores' },
  {
    file: 'test/verify/sigstore-fuzz.test.ts',
    what: 'bundles, cosign payloads, certificates, trusted roots',
  },
  {
    file: 'test/verify/policy-fuzz.test.ts',
    what: 'trust rules, prefixes, manifests of signatures',
  },
  { file: 'test/cli/tokenizer.test.ts', what: 'command lines' },
  { file: 'test/humanize.test.ts', what: 'durations' },
  { file: 'test/assemble/assemble.test.ts', what: 'volumes, pod manifests' },
  { file: 'test/assemble/seccomp.test.ts', what: 'seccomp filters, run by an interpreter' },
  { file: 'test/launch/fuzz.test.ts', what: 'launch plans and app plans (C, with sanitizers)' },
  { file: 'test/stage2/init-control.test.ts', what: "the control socket of stage2's init" },
  {
    file: 'test/store/model.test.ts',
    what: 'sequences of operations on the store, against a model',
  },
];
