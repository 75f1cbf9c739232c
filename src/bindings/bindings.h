/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's headers that src/bindings/ needs and kernel::bindings lacks, and
 * the C helpers of helpers.c. bindgen reads this with the allowlist in
 * bindgen_parameters.
 */
#ifndef RDAX_BINDINGS_H
#define RDAX_BINDINGS_H

#include <linux/blkdev.h>
#include <linux/crc32.h>
#include <linux/dax.h>
#include <linux/exportfs.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fileattr.h>
#include <linux/filelock.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/libnvdimm.h>
#include <linux/list_lru.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/rmap.h>
#include <linux/seq_file.h>
#include <linux/shrinker.h>
#include <linux/statfs.h>
#include <linux/xarray.h>

#include <asm/extable.h>
#include <asm/fpu/api.h>

/* env */
unsigned int rdax_memalloc_nofs_save(void);
void rdax_memalloc_nofs_restore(unsigned int flags);
u64 rdax_siphash24(const u8 key[16], const void *data, size_t len);

/* vfs: locks */
void rdax_mutex_lock_nested(struct mutex *lock, unsigned int subclass);
bool rdax_mutex_trylock(struct mutex *lock);
void rdax_inode_lock(struct inode *inode);
bool rdax_inode_trylock(struct inode *inode);
void rdax_inode_unlock(struct inode *inode);
void rdax_inode_lock_shared(struct inode *inode);
bool rdax_inode_trylock_shared(struct inode *inode);
void rdax_inode_unlock_shared(struct inode *inode);
void rdax_filemap_invalidate_lock(struct address_space *mapping);
void rdax_filemap_invalidate_unlock(struct address_space *mapping);
bool rdax_sb_start_intwrite_trylock(struct super_block *sb);
void rdax_sb_end_intwrite(struct super_block *sb);

/* vfs: inodes */
struct inode *rdax_alloc_inode_sb(struct super_block *sb, struct kmem_cache *cache);
bool rdax_inode_is_new(struct inode *inode);
loff_t rdax_i_size_read(const struct inode *inode);
void rdax_i_size_write(struct inode *inode, loff_t size);
uid_t rdax_i_uid_read(const struct inode *inode);
gid_t rdax_i_gid_read(const struct inode *inode);
void rdax_i_uid_write(struct inode *inode, uid_t uid);
void rdax_i_gid_write(struct inode *inode, gid_t gid);
void rdax_inode_get_atime(const struct inode *inode, struct timespec64 *ts);
void rdax_inode_get_mtime(const struct inode *inode, struct timespec64 *ts);
void rdax_inode_get_ctime(const struct inode *inode, struct timespec64 *ts);
void rdax_inode_set_atime(struct inode *inode, s64 sec, u32 nsec);
void rdax_inode_set_mtime(struct inode *inode, s64 sec, u32 nsec);
void rdax_inode_set_ctime(struct inode *inode, s64 sec, u32 nsec);
u32 rdax_encode_dev(dev_t dev);
dev_t rdax_decode_dev(u32 dev);
void rdax_set_open_direct(struct file *file);
void rdax_set_cached_link(struct inode *inode, char *link, int len);

void rdax_cache_no_acl(struct inode *inode);
void rdax_posix_acl_release(struct posix_acl *acl);
int rdax_security_inode_init_security(struct inode *inode, struct inode *dir,
				      const struct qstr *name,
				      int (*initxattrs)(struct inode *inode,
							const struct xattr *xattrs,
							void *data),
				      void *data);

/* vfs: what is given back when memory is short */
void rdax_init_list_head(struct list_head *links);
int rdax_list_lru_init(struct list_lru *lru, struct shrinker *shrinker);
void *rdax_alloc_lru(struct kmem_cache *cache, struct list_lru *lru);
unsigned long rdax_list_lru_count(struct list_lru *lru, struct shrink_control *sc);
unsigned long rdax_list_lru_walk(struct list_lru *lru, struct shrink_control *sc,
				 enum lru_status (*isolate)(struct list_head *item,
							    struct list_lru_one *list, void *arg),
				 void *arg);

/* vfs: files and directories */
const struct qstr *rdax_dentry_name(const struct dentry *dentry);
bool rdax_dir_emit(struct dir_context *ctx, const char *name, int len, u64 ino, unsigned int type);
bool rdax_dir_emit_dots(struct file *file, struct dir_context *ctx);
void rdax_file_accessed(struct file *file);
ssize_t rdax_generic_write_sync(struct kiocb *iocb, ssize_t count);
int rdax_finish_open_simple(struct file *file, int error);
bool rdax_mapping_supported(const struct vm_area_desc *desc, const struct inode *inode,
			    struct dax_device *dax_dev);
bool rdax_fileattr_has_fsx(const struct file_kattr *fa);
bool rdax_fatal_signal_pending(void);
void rdax_cond_resched(void);

/* vfs: the page cache */
struct folio *rdax_folio_to_write(struct address_space *mapping, unsigned long index);
void *rdax_folio_address(const struct folio *folio);
bool rdax_folio_test_uptodate(struct folio *folio);
void rdax_folio_mark_uptodate(struct folio *folio);
void rdax_folio_put(struct folio *folio);

/* vfs: super blocks */
void rdax_set_names(struct super_block *sb, const u8 uuid[16]);
void rdax_report_damage(struct super_block *sb, int error);
void rdax_fc_error(struct fs_context *fc, const char *message);
void rdax_panic(const char *name) __noreturn;
bool rdax_printk_ratelimit(void);

/* pmem */
bool rdax_bdev_has_dax(struct block_device *bdev);
const int *rdax_bdev_badblocks(struct block_device *bdev);
bool rdax_bdev_read_only(struct block_device *bdev);
u64 rdax_bdev_start(struct block_device *bdev);
u64 rdax_bdev_bytes(struct block_device *bdev);
/*
 * Copies as copy_mc_to_kernel() does: returns the bytes not copied where the media
 * cannot be read. Word by word, which for a structure takes less than to start a
 * string instruction.
 */
unsigned long rdax_read_mc(void *to, const void *from, unsigned long len);
size_t rdax_copy_mc_to_iter(const void *from, size_t len, struct iov_iter *iter);
size_t rdax_copy_from_iter_flushcache(void *to, size_t len, struct iov_iter *iter);
size_t rdax_copy_from_iter(void *to, size_t len, struct iov_iter *iter);
void rdax_iov_iter_truncate(struct iov_iter *iter, size_t len);
void rdax_pmem_wmb(void);
void rdax_synchronize_rcu_tasks(void);
int rdax_access_begin(void);
void rdax_access_end(int index);
void rdax_access_wait(void);
void rdax_non_block_start(void);
void rdax_non_block_end(void);
struct dev_pagemap *rdax_pagemap_get(unsigned long pfn, unsigned long nr);
void rdax_pagemap_put(struct dev_pagemap *pgmap);
void rdax_wait_for_zero(s64 *count);
bool rdax_cpu_has_aes(void);

/* dax: locks */
void rdax_sb_start_pagefault(struct super_block *sb);
void rdax_sb_end_pagefault(struct super_block *sb);
void rdax_filemap_invalidate_lock_shared(struct address_space *mapping);
void rdax_filemap_invalidate_unlock_shared(struct address_space *mapping);
bool rdax_filemap_invalidate_trylock(struct address_space *mapping);
void rdax_init_rwsem(struct rw_semaphore *lock);
bool rdax_mapping_writably_mapped(const struct address_space *mapping);
void rdax_mapping_locked(struct address_space *mapping, pgoff_t first, unsigned long nr,
			 bool writable, unsigned long *pages);
bool rdax_vma_is_locked(const struct vm_area_struct *vma);
bool rdax_vma_is_watched(const struct vm_area_struct *vma);
void rdax_vma_is_copied(struct vm_area_struct *vma, const struct vm_operations_struct *ops);
bool rdax_desc_is_locked(const struct vm_area_desc *desc);
bool rdax_wbc_is_of_sync(const struct writeback_control *wbc);
void rdax_inode_dirtied_now(struct inode *inode);
bool rdax_sb_is_freezing(const struct super_block *sb);

/* dax: work */
void rdax_init_delayed_work(struct delayed_work *work, work_func_t func);

/* dax: the tree of chunks */
void rdax_xa_init(struct xarray *xa);
bool rdax_xa_marked(const struct xarray *xa, xa_mark_t mark);

/* dax: pages */
struct page *rdax_pfn_to_page(unsigned long pfn);
struct page *rdax_zero_page(void);
struct folio *rdax_alloc_huge_zero(void);
bool rdax_page_poisoned(const struct page *page);
void rdax_page_set_poisoned(struct page *page);
int rdax_page_clear_poisoned(struct page *page);
bool rdax_page_test_clear_dirty(struct page *page);
struct folio *rdax_page_folio(struct page *page);
void rdax_page_get(struct page *page);
void rdax_page_put(struct page *page);
bool rdax_folio_is_huge(const struct folio *folio);
int rdax_folio_ref_count(const struct folio *folio);
bool rdax_folio_is_held(const struct folio *folio);
void rdax_folio_lock(struct folio *folio);
void rdax_folio_unlock(struct folio *folio);
int rdax_folio_wait_idle(struct folio *folio, bool interruptible);
void rdax_make_huge(struct page *page);
bool rdax_cow_zero(struct vm_fault *vmf);
void rdax_wait_for_zero_copies(void);
bool rdax_pmd_is_huge(const struct vm_fault *vmf);
bool rdax_pmd_is_none(const struct vm_fault *vmf);
void rdax_install_page_table(struct vm_fault *vmf);
void rdax_clear_pte_marker(struct vm_fault *vmf);
void rdax_insert_writable(struct vm_fault *vmf, unsigned long address, struct page *page,
			  unsigned int nr);
void rdax_mapping_set_error(struct address_space *mapping, int error);

#ifdef __BINDGEN__
/* Macros with casts, which bindgen cannot evaluate. */
const unsigned long RDAX_SB_RDONLY = SB_RDONLY;
const unsigned long RDAX_SB_FORCE = SB_FORCE;
const unsigned long RDAX_SB_POSIXACL = SB_POSIXACL;
const unsigned long RDAX_SB_NOSEC = SB_NOSEC;
const unsigned int RDAX_S_DAX = S_DAX;
const unsigned int RDAX_S_IMMUTABLE = S_IMMUTABLE;
const unsigned int RDAX_S_APPEND = S_APPEND;
const unsigned int RDAX_S_NOATIME = S_NOATIME;
const unsigned int RDAX_FOP_MMAP_SYNC = FOP_MMAP_SYNC;
const unsigned int RDAX_FOP_BUFFER_WASYNC = FOP_BUFFER_WASYNC;
const unsigned int RDAX_SLAB_FLAGS = SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT;
const unsigned int RDAX_SHRINKER_FLAGS = SHRINKER_MEMCG_AWARE | SHRINKER_NUMA_AWARE;
const gfp_t RDAX_GFP_FS = __GFP_FS;
const int RDAX_IOCB_DIRECT = IOCB_DIRECT;
const int RDAX_IOCB_NOWAIT = IOCB_NOWAIT;
const int RDAX_IOCB_DSYNC = IOCB_DSYNC;
const xa_mark_t RDAX_XA_MARK_1 = XA_MARK_1;
const xa_mark_t RDAX_XA_PRESENT = XA_PRESENT;
const int RDAX_I_DIRTY_SYNC = I_DIRTY_SYNC;
const int RDAX_MF_MEM_PRE_REMOVE = MF_MEM_PRE_REMOVE;
const int RDAX_EX_TYPE_DEFAULT_MCE_SAFE = EX_TYPE_DEFAULT_MCE_SAFE;
const unsigned int RDAX_PMD_ORDER = PMD_ORDER;
const unsigned long RDAX_VM_SHARED = VM_SHARED;
const int RDAX_FALLOC_FL_KEEP_SIZE = FALLOC_FL_KEEP_SIZE;
const int RDAX_FALLOC_FL_PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE;
const int RDAX_FALLOC_FL_ZERO_RANGE = FALLOC_FL_ZERO_RANGE;
const int RDAX_FALLOC_FL_COLLAPSE_RANGE = FALLOC_FL_COLLAPSE_RANGE;
const int RDAX_FALLOC_FL_INSERT_RANGE = FALLOC_FL_INSERT_RANGE;
const int RDAX_FALLOC_FL_UNSHARE_RANGE = FALLOC_FL_UNSHARE_RANGE;
const int RDAX_FALLOC_FL_WRITE_ZEROES = FALLOC_FL_WRITE_ZEROES;
#endif

#endif
